"""Keeps rings of ended processes from piling up where nobody reads them, or not often enough.

All but the newest are emptied: their memory goes, how many inferences they held stays, so that the reader can
say what was lost.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

from edgeml.telemetry.folder import is_owned
from edgeml.telemetry.ring import EMPTIED_AT, PAGE, SUFFIX
from edgeml.telemetry.ring_file import DamagedRingError, RingFile, last_number

KEPT: Final = 16
"""Rings of ended processes that stay whole, 1.1 MB each at most."""
MOST_EMPTIED: Final = 512
"""4 KiB each; the oldest beyond are removed."""
SCRATCH: Final = ".new"
_BLOCK_BYTES: Final = 512


def clear_up(folder: Path) -> None:
    """Empty the rings that this user's ended processes left, but for the newest."""
    own = os.geteuid()
    whole: list[tuple[float, Path]] = []
    emptied: list[tuple[float, Path]] = []
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith((SUFFIX, SCRATCH)):
                with suppress(OSError):
                    status = entry.stat(follow_symlinks=False)
                    if status.st_uid == own:
                        is_whole = status.st_blocks * _BLOCK_BYTES > 2 * PAGE
                        (whole if is_whole else emptied).append((status.st_mtime, Path(entry.path)))
    for _, path in sorted(whole)[:-KEPT]:
        if not is_owned(path):
            _empty(path)
    for _, path in sorted(emptied)[:-MOST_EMPTIED]:
        if not is_owned(path):
            path.unlink(missing_ok=True)


def _empty(path: Path) -> None:
    for raw in path.parent.glob(f"{path.stem}-*.raw"):
        raw.unlink(missing_ok=True)
    try:
        if path.suffix == SCRATCH or not _is_emptied(path):
            path.unlink(missing_ok=True)
    except (OSError, DamagedRingError):
        path.unlink(missing_ok=True)


def _is_emptied(path: Path) -> bool:
    """Empty a ring of calls; ``False`` if it may as well be removed."""
    file = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True  # it is being read
        with RingFile(path) as ring:
            if ring.info.of:
                return False
            last = max(ring.emptied_at, last_number(ring.read, ring.layout))
        # its size stays: a process that closed the ring may have it in memory still, and would end by a write
        with mmap.mmap(file, 0) as whole:
            whole[EMPTIED_AT : EMPTIED_AT + 8] = last.to_bytes(8, sys.byteorder)
            whole.madvise(mmap.MADV_REMOVE, PAGE, len(whole) // PAGE * PAGE - PAGE)
        return last > 0
    finally:
        os.close(file)
