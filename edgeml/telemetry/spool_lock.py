"""Who owns the spool: the agent, or a process that is alone."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path
from weakref import WeakSet

_held: WeakSet[SpoolLock] = WeakSet()


class SpoolLock:
    """A lock on a folder, until it is closed or the process ends."""

    def __init__(self, handle: int) -> None:
        self._handle = handle
        _held.add(self)

    def close(self) -> None:
        if self._handle >= 0:
            # a child that was forked a moment ago may not have closed its copy yet
            fcntl.flock(self._handle, fcntl.LOCK_UN)
            self.leave()

    def leave(self) -> None:
        """Close this process's copy; who has another goes on owning the folder."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1


def take_lock(folder: Path) -> SpoolLock | None:
    """Own a folder; ``None``: another process does.

    Raises:
        OSError: the folder cannot be made or written.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # samples of inputs may be in it
    handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    except BaseException:
        os.close(handle)
        raise
    return SpoolLock(handle)


def _leave_to_parent() -> None:
    for lock in list(_held):
        with suppress(OSError):
            lock.leave()


# a child that is forked would go on owning the folder when its parent has died
os.register_at_fork(after_in_child=_leave_to_parent)
