"""Who holds a device's home during a deploy: a name that tells whether its process is still alive."""

from __future__ import annotations

import getpass
import os
import secrets
import socket
from pathlib import Path
from typing import Final

_BOOT: Final = Path("/proc/sys/kernel/random/boot_id")
_START: Final = 19
"""Place of the start time behind the command name in ``/proc/<pid>/stat`` (proc_pid_stat(5), field 22)."""


def new_owner() -> str:
    """Give a name for a deploy by this process: boot, process id, start time, random."""
    return f"{_boot()}.{os.getpid()}.{_started(os.getpid())}.{secrets.token_hex(8)}"


def who() -> str:
    """Give the name of this user and machine, for people."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # an account without a name
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()} (process {os.getpid()})"


def may_take(owner: str) -> bool:
    """Say whether a deploy was this machine's, and its process is gone."""
    parts = owner.split(".")
    if len(parts) != 4 or not _boot() or parts[0] != _boot() or not parts[1].isdecimal():  # noqa: PLR2004
        return False
    return _started(int(parts[1])) != parts[2]


def _boot() -> str:
    try:
        return _BOOT.read_text().strip()
    except OSError:
        return ""


def _started(pid: int) -> str:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return ""
    return text.rpartition(")")[2].split()[_START]
