"""One agent for each home folder."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from edgeml.errors import FleetError
from edgeml_devices.agent.home import Home, make_home

_PATIENCE_S: Final = 1.0
"""Who only looks whether the lock is held holds it for a moment."""


@contextmanager
def sole_agent(home: Home) -> Iterator[None]:
    """Be the one agent of a home folder.

    Raises:
        FleetError: there is one already, or the home folder cannot be made.
        OSError: it cannot be written.
    """
    make_home(home)
    handle = os.open(home.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        deadline = time.monotonic() + _PATIENCE_S
        while not _take(handle):
            if time.monotonic() > deadline:
                raise FleetError(
                    f"another agent works in {home.path} (process {_holder(handle)}); stop it first, "
                    "or give this one a home of its own (EDGEML_HOME)"
                )
            time.sleep(0.05)
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(handle)


def agent_process(home: Home) -> str | None:
    """Give the process id of the agent that works in a home folder; ``None``: there is none."""
    try:
        handle = os.open(home.lock, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return None if _take(handle, fcntl.LOCK_SH) else _holder(handle)
    finally:
        os.close(handle)


def _take(handle: int, kind: int = fcntl.LOCK_EX) -> bool:
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(handle: int) -> str:
    return os.pread(handle, 20, 0).decode(errors="replace").strip() or "unknown"
