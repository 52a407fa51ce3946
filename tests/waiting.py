"""Waits for what comes about elsewhere: in a thread, a process, a machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


def eventually(
    condition: Callable[[], T], what: str = "what is waited for", within_s: float = 120, every_s: float = 0.02
) -> T:
    """Give a condition's first answer that is true.

    Raises:
        AssertionError: there was none within that time; names ``what``.
    """
    deadline = time.monotonic() + within_s
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {within_s:g} s: {what}"
        time.sleep(every_s)
    return found


def pid_in(file: Path) -> int:
    """Give the process id that a child writes to a file, as one line."""
    eventually(lambda: file.exists() and file.read_text().endswith("\n"), f"a process id in {file}")
    return int(file.read_text())


def is_running(pid: int) -> bool:
    """Say whether a process runs; one that ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


def gone(pid: int) -> bool:
    """Wait until a process has ended."""
    return eventually(lambda: not is_running(pid), f"process {pid} ends")
