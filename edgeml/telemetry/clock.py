"""What time it is, and whether it may be believed."""

from __future__ import annotations

import ctypes
import time
from pathlib import Path
from typing import Final, Literal

_UNSYNC: Final = 0x0040
"""``STA_UNSYNC`` of ``timex.status`` (adjtimex(2))."""
_STATUS_OFFSET: Final = 5 * ctypes.sizeof(ctypes.c_long)
"""Of ``timex.status``: behind ``modes`` (padded), ``offset``, ``freq``, ``maxerror``, ``esterror``."""
_TIMEX_BYTES: Final = 512
"""The structure has 208 bytes at most."""
_EARLIEST: Final = 1_735_689_600.0
"""1 January 2025: an earlier clock was never set."""

ClockState = Literal["synced", "unsynced", "unknown"]


def boot_clock() -> float:
    """Give seconds since the boot, time asleep included, where the system counts it."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


def boot_id(root: Path = Path("/")) -> str:
    """Give the name of this boot; empty where the system has none."""
    try:
        return (root / "proc/sys/kernel/random/boot_id").read_text().strip()[:64]
    except OSError:
        return ""


def clock_state(root: Path = Path("/"), now: float | None = None) -> ClockState:
    """Say whether the wall clock may be believed.

    ``synced`` if the kernel or systemd-timesyncd says so, ``unsynced`` if it stands before this was written;
    else ``unknown``: a virtual machine may have its host's clock and not know it.
    """
    if (time.time() if now is None else now) < _EARLIEST:
        return "unsynced"
    if (root / "run/systemd/timesync/synchronized").exists():
        return "synced"
    return "synced" if root == Path("/") and _kernel_is_synced() else "unknown"


def _kernel_is_synced() -> bool:
    try:
        adjtimex = ctypes.CDLL(None, use_errno=True).adjtimex
    except (AttributeError, OSError):
        return False
    buffer = ctypes.create_string_buffer(_TIMEX_BYTES)  # modes = 0: only look
    if adjtimex(buffer) < 0:
        return False
    status = ctypes.c_int.from_buffer(buffer, _STATUS_OFFSET).value
    return not status & _UNSYNC
