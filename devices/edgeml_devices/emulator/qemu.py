"""The QEMU that is installed: its version, and which fixed version of the ``virt`` machine it offers."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgeml.errors import EngineVersionError
from edgeml_devices.emulator import tools

PREFERRED: Final = "virt-7.2"
"""What everything was measured on. ``virt`` alone moves with QEMU, and a snapshot would not survive that."""
_MACHINE: Final = re.compile(r"^virt-(\d+)\.(\d+)\s", re.MULTILINE)
_VERSION: Final = re.compile(r"version (.+)")


@dataclass(frozen=True, slots=True)
class Qemu:
    """An installed ``qemu-system-aarch64``."""

    program: Path
    version: str
    """As it says itself, the package's version included: a part of the key of a snapshot."""
    machine: str
    """For ``-machine``: ``virt-7.2``."""


def find_qemu() -> Qemu:
    """Look at the QEMU that is installed.

    Raises:
        EngineMissingError: there is none; says what to install.
        EngineVersionError: it offers no ``virt`` machine of a fixed version.
    """
    program = tools.find(tools.QEMU_SYSTEM)
    said = _VERSION.search(_output(program, "--version"))
    return Qemu(
        program, said[1].strip() if said else "unknown", machine_type(_output(program, "-machine", "help"))
    )


def machine_type(machines: str) -> str:
    """Choose from what ``-machine help`` lists: :data:`PREFERRED`, or else the newest.

    Raises:
        EngineVersionError: it lists no ``virt`` machine of a fixed version.
    """
    offered = sorted((int(major), int(minor)) for major, minor in _MACHINE.findall(machines))
    names = [f"virt-{major}.{minor}" for major, minor in offered]
    if not names:
        raise EngineVersionError(
            "this qemu-system-aarch64 offers no machine virt-N.M; install QEMU 7.2 or newer"
        )
    return PREFERRED if PREFERRED in names else names[-1]


def _output(program: Path, *arguments: str) -> str:
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False, timeout=60)
    return done.stdout
