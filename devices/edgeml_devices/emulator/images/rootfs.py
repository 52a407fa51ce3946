"""The root file system of an image: which packages, and what their scripts would have set up."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from edgeml.errors import EdgemlError
from edgeml_devices.emulator.images.image import SITE, Flavour
from edgeml_devices.emulator.images.recipe import recipe_text
from edgeml_devices.emulator.images.unpack import unpack_all

PACKAGES: Final = (
    *("base-files", "base-passwd", "bash", "busybox-static", "ca-certificates", "coreutils", "dash"),
    *("dropbear-bin", "e2fsprogs", "findutils", "grep", "gzip", "hostname", "iproute2", "kmod", "libc-bin"),
    *("libgomp1", "libstdc++6", "login", "lrzsz", "mount", "openssh-sftp-server", "passwd", "procps"),
    *("python3", "python3-venv", "sed", "tar", "usr-is-merged", "util-linux"),
)
"""Of both flavours. ``usr-is-merged`` keeps perl out, which the other way to a merged /usr would bring."""
SYSTEMD_PACKAGES: Final = ("dbus", "systemd", "systemd-sysv", "udev")
AGENT_USER: Final = "edgeml"
AGENT_ID: Final = 990
"""User and group of the agent, as its service has."""
AGENT_HOME: Final = "var/lib/edgeml"
_USERS: Final = (
    # name, id, home
    (AGENT_USER, AGENT_ID, f"/{AGENT_HOME}"),
    ("messagebus", 991, "/nonexistent"),
    ("systemd-network", 998, "/"),
    ("systemd-resolve", 997, "/"),
)
_GROUPS: Final = (("systemd-journal", 999), ("input", 995), ("kvm", 994), ("render", 993), ("sgx", 992))
_MOUNT_POINTS: Final = {
    **dict.fromkeys(("dev", "home", "media", "mnt", "opt", "run", "srv", SITE), 0o755),
    **dict.fromkeys(("proc", "sys"), 0o555),
    "tmp": 0o1777,
}
"""Folders that the machine or user mode puts others over. One that was missing proot would make, and take
away when the first of several commands ends: the others would lose what lies there."""
_POWER: Final = ("poweroff", "halt", "reboot", "shutdown")
"""What systemd brings itself."""
_UNITS: Final = (
    "edgeml-board.service",
    "edgeml-ssh.service",
    "edgeml-ready.service",
    "edgeml-console@.service",
    "edgeml-agent.path",
)
_ENABLED: Final = {
    "sysinit.target": ("edgeml-board.service",),
    "multi-user.target": (
        *("edgeml-ssh.service", "edgeml-ready.service", "edgeml-agent.path"),
        *("edgeml-console@ttyAMA0.service", "edgeml-console@ttyS0.service", "systemd-networkd.service"),
    ),
}
_MASKED: Final = (
    *("dev-hugepages.mount", "getty@.service", "modprobe@.service", "proc-sys-fs-binfmt_misc.automount"),
    *(
        "serial-getty@.service",
        "sys-kernel-debug.mount",
        "sys-kernel-tracing.mount",
        "systemd-hwdb-update.service",
    ),
    *("systemd-journal-catalog-update.service", "systemd-logind.service", "systemd-update-utmp.service"),
    "systemd-networkd-wait-online.service",
)
"""What an emulated board has no use for, and what would be work at each first boot."""


def packages_of(flavour: Flavour) -> tuple[str, ...]:
    """Give the packages to ask for."""
    return (*PACKAGES, *SYSTEMD_PACKAGES) if flavour == "systemd" else PACKAGES


def make_root(debs: Sequence[Path], flavour: Flavour, root: Path, on_unpacked: Callable[[int], None]) -> None:
    """Fill an empty folder.

    Raises:
        EdgemlError: a package is damaged.
    """
    unpack_all(debs, root, on_unpacked)
    _write_accounts(root)
    _write_settings(root)
    for name in ("board", "has-line", "shell", "wait-ssh"):
        _install(root, f"usr/local/sbin/edgeml-{name}", recipe_text(f"{name}.sh"), 0o755)
    _install(root, "usr/local/bin/edgeml", recipe_text("edgeml.sh"), 0o755)
    if flavour == "systemd":
        _write_units(root)
    else:
        _install(root, "sbin/init", recipe_text("minimal-init.sh"), 0o755)
        for name in _POWER:
            _install(root, f"usr/sbin/{name}", recipe_text("power.sh"), 0o755)
    for name, mode in _MOUNT_POINTS.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        (root / name).chmod(mode)


def _write_accounts(root: Path) -> None:
    """Write what base-passwd's and other packages' scripts would have."""
    master = root / "usr/share/base-passwd"
    users = (
        (master / "passwd.master")
        .read_text()
        .replace("root:*:0:0:root:/root:/bin/sh", "root:*:0:0:root:/root:/bin/bash")
    )
    groups = (master / "group.master").read_text()
    for name, number, home in _USERS:
        users += f"{name}:*:{number}:{number}::{home}:/usr/sbin/nologin\n"
        groups += f"{name}:*:{number}:\n"
    for name, number in _GROUPS:
        groups += f"{name}:*:{number}:\n"
    _install(root, "etc/passwd", users)
    _install(root, "etc/group", groups)
    shadow = "".join(f"{line.split(':')[0]}:*:19000:0:99999:7:::\n" for line in users.splitlines())
    _install(root, "etc/shadow", shadow, 0o640)
    _install(root, "etc/shells", "/bin/sh\n/bin/bash\n/bin/dash\n")


def _write_settings(root: Path) -> None:
    _install(root, "etc/hostname", "edgeml\n")
    _install(root, "etc/hosts", "127.0.0.1 localhost\n10.0.2.2 host\n10.0.2.15 edgeml\n")
    _install(root, "etc/resolv.conf", "nameserver 10.0.2.3\n")
    _install(root, "etc/nsswitch.conf", "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n")
    _install(root, "etc/fstab", "/dev/vda / ext4 rw,noatime 0 1\n")
    _install(root, "etc/machine-id", "")
    authorities = sorted((root / "usr/share/ca-certificates").rglob("*.crt"))
    _install(root, "etc/ssl/certs/ca-certificates.crt", "".join(path.read_text() for path in authorities))
    for place, target in (
        ("bin/sh", "dash"),
        ("bin/awk", "mawk"),
        ("bin/which", "which.debianutils"),
        ("etc/mtab", "../proc/self/mounts"),
        ("var/run", "../run"),
        ("var/lock", "../run/lock"),
    ):
        link = root / place
        if not link.is_symlink() and not link.exists():
            link.symlink_to(target)
    for name in ("etc/dropbear", "root/.ssh", AGENT_HOME, "var/log"):
        (root / name).mkdir(parents=True, exist_ok=True)
    (root / "root").chmod(0o700)
    (root / "root/.ssh").chmod(0o700)


def _write_units(root: Path) -> None:
    for name in _UNITS:
        _install(root, f"etc/systemd/system/{name}", recipe_text(f"systemd/{name}"))
    _install(root, "etc/systemd/system/edgeml-agent.service", _agent_unit())
    _install(root, "etc/systemd/network/eth0.network", recipe_text("systemd/eth0.network"))
    for target, names in _ENABLED.items():
        wants = root / "etc/systemd/system" / f"{target}.wants"
        wants.mkdir(parents=True, exist_ok=True)
        for name in names:
            own = f"{name.partition('@')[0]}@.service" if "@" in name else name
            (wants / name).symlink_to(
                f"/lib/systemd/system/{own}" if own.startswith("systemd-") else f"/etc/systemd/system/{own}"
            )
    (root / "etc/systemd/system/default.target").symlink_to("/lib/systemd/system/multi-user.target")
    for name in _MASKED:
        (root / "etc/systemd/system" / name).symlink_to("/dev/null")


def _agent_unit() -> str:
    """Give the agent's own unit, as it prints it, with the guest's Python."""
    argv = [sys.executable, "-P", "-m", "edgeml", "agent", "install", "--print"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise EdgemlError(f"edgeml agent install --print failed: {done.stderr.strip()}")
    return done.stdout.replace(f"ExecStart={sys.executable} ", "ExecStart=/usr/bin/python3 ")


def _install(root: Path, name: str, content: str, mode: int = 0o644) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.write_text(content, encoding="utf-8")
    path.chmod(mode)
