"""How far rings were read, beside the rings: it is as old as they are, whatever becomes of the spool.

A spool that was removed, damaged, or restored from an older copy would have them read again from where it
stood then. And rings have one reader: a process that works for another home leaves them to the first.
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
import zlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from edgeml.telemetry.reading import FINISHED
from edgeml.telemetry.spool_lock import SpoolLock

_MOST_BYTES: Final = 1024 * 1024
_FLAGS: Final = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


class ReadMark:
    """A file of this user in the folder of the rings. For one thread."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / f"read-{os.geteuid()}"
        self._handle = -1
        self._lock: SpoolLock | None = None

    @property
    def is_held(self) -> bool:
        """Whether this process is the one that reads."""
        return self._lock is not None

    def take(self) -> bool:
        """Hold the mark until it is closed; ``False``: another process of this user does.

        Where there is no folder yet, or somebody else has put something there, the rings are read without it.
        """
        if self._lock is not None:
            return True
        try:
            handle = os.open(self._path, _FLAGS, 0o600)
        except OSError:
            return True
        try:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
                os.close(handle)
                return True
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(handle)
            return False
        self._handle, self._lock = handle, SpoolLock(handle)
        return True

    def newest(self, positions: Mapping[str, Any]) -> dict[str, Any]:
        """Give for each ring where it was read to, by these positions or by the mark."""
        found = dict(positions)
        for ring, marked in self._read().items():
            known = found.get(ring)
            known = known if type(known) is int else 0
            found[ring] = FINISHED if FINISHED in {known, marked} else max(known, marked)
        return found

    def keep(self, positions: Mapping[str, int]) -> None:
        """Write down what stands in the spool now."""
        if self._lock is None:
            return
        text = json.dumps(dict(positions), separators=(",", ":")).encode()
        content = b"%s\n%08x\n" % (text, zlib.crc32(text))
        with suppress(OSError):  # no room: the spool knows it, too
            os.pwrite(self._handle, content, 0)
            os.ftruncate(self._handle, len(content))

    def _read(self) -> dict[str, int]:
        if self._lock is None:
            return {}
        with suppress(OSError, ValueError):
            text, checksum, *_ = os.pread(self._handle, _MOST_BYTES, 0).split(b"\n")
            if checksum == b"%08x" % zlib.crc32(text):
                return {ring: at for ring, at in json.loads(text).items() if type(at) is int}
        return {}

    def close(self) -> None:
        """Leave the rings to another."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None
