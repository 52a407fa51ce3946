"""The programs of the host that emulation needs, and the Debian packages that bring them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgeml.errors import EngineMissingError

_SYSTEM_FOLDERS: Final = ("/usr/sbin", "/sbin")
"""Not in an ordinary user's PATH on Debian."""


@dataclass(frozen=True, slots=True)
class Tool:
    """A program and the Debian package that holds it."""

    program: str
    package: str


APT_GET: Final = Tool("apt-get", "apt")
DPKG_DEB: Final = Tool("dpkg-deb", "dpkg")
FAKEROOT: Final = Tool("fakeroot", "fakeroot")
MKE2FS: Final = Tool("mke2fs", "e2fsprogs")
QEMU_IMG: Final = Tool("qemu-img", "qemu-utils")
QEMU_SYSTEM: Final = Tool("qemu-system-aarch64", "qemu-system-arm")
QEMU_USER: Final = Tool("qemu-aarch64-static", "qemu-user-static")
PROOT: Final = Tool("proot", "proot")
SSH: Final = Tool("ssh", "openssh-client")
SSH_KEYGEN: Final = Tool("ssh-keygen", "openssh-client")
TAR: Final = Tool("tar", "tar")

TO_BUILD: Final = (APT_GET, DPKG_DEB, TAR, FAKEROOT, MKE2FS, QEMU_IMG, SSH_KEYGEN)
TO_BOOT: Final = (QEMU_SYSTEM, QEMU_IMG, SSH)
TO_RUN_IN_USER_MODE: Final = (QEMU_USER, PROOT)


def find(tool: Tool) -> Path:
    """Give the path of a program.

    Raises:
        EngineMissingError: see :func:`require`.
    """
    require(tool)
    found = _where(tool)
    assert found is not None  # noqa: S101 - required the line before
    return Path(found)


def missing(tools: Sequence[Tool]) -> tuple[Tool, ...]:
    """Give those that are not installed."""
    return tuple(tool for tool in dict.fromkeys(tools) if _where(tool) is None)


def require(*tools: Tool) -> None:
    """Check that programs are installed, all at once.

    Raises:
        EngineMissingError: names each that is missing, its package, and the line that installs them.
    """
    lacking = missing(tools)
    if not lacking:
        return
    named = ", ".join(f"{tool.program} (package {tool.package})" for tool in lacking)
    elsewhere = "" if shutil.which("apt-get") else "; images are built on Debian and Ubuntu only"
    raise EngineMissingError(f"emulation lacks {named}. Install: {install_command(lacking)}{elsewhere}")


def install_command(tools: Sequence[Tool]) -> str:
    """Give the command that installs programs."""
    packages = " ".join(sorted({tool.package for tool in tools}))
    return f"sudo apt-get install --no-install-recommends {packages}"


def _where(tool: Tool) -> str | None:
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), *_SYSTEM_FOLDERS))
    return shutil.which(tool.program, path=path)
