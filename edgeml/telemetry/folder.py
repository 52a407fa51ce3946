"""Where the rings of a device are, whoever records and whoever reads."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Final

from edgeml.telemetry.ring import SUFFIX

SHARED_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - what is in it is owned, and read with care
FOLDER_MODE: Final = 0o1777
"""Every process of the device may record; none may take away another's ring."""
KEPT: Final = 16
"""Rings of ended processes that stay where nobody reads them; 1.1 MB each at most."""
SCRATCH: Final = ".new"


def ring_folder(home: Path) -> Path:
    """Give the folder of the rings of the models under ``home``; it need not exist.

    It is in shared memory; where the machine has none, in a folder for temporary files of this user alone.
    """
    key = hashlib.sha256(os.fsencode(os.path.realpath(home))).hexdigest()[:16]
    if SHARED_MEMORY.is_dir():
        return SHARED_MEMORY / f"edgeml-{key}"
    return Path(tempfile.gettempdir()) / f"edgeml-{os.getuid()}-{key}"


def make_folder(folder: Path) -> None:
    """Make the folder where it is missing, and see that it is one to share.

    Raises:
        OSError: it cannot be made, or something else is in its place.
    """
    with suppress(FileExistsError):
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir()
        folder.chmod(FOLDER_MODE if folder.parent == SHARED_MEMORY else 0o700)
    found = folder.lstat()
    is_own = found.st_uid == os.geteuid()
    if not stat.S_ISDIR(found.st_mode) or not (is_own or found.st_mode & stat.S_ISVTX):
        raise NotADirectoryError(f"{folder} is no folder that processes could share")


def clear_up(folder: Path) -> None:
    """Remove what this user's ended processes left, but for the newest rings: there may be no reader."""
    own = os.geteuid()
    ended: list[tuple[float, Path]] = []
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith((SUFFIX, SCRATCH)):
                with suppress(OSError):
                    status = entry.stat(follow_symlinks=False)
                    if status.st_uid == own:
                        ended.append((status.st_mtime, Path(entry.path)))
    for _, path in sorted(ended)[:-KEPT]:
        if not is_owned(path):
            for place in (path, *folder.glob(f"{path.stem}-*.raw")):
                place.unlink(missing_ok=True)


def is_owned(path: Path) -> bool:
    """Say whether a process that lives owns a ring; one that cannot be looked at counts as owned."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return True
    try:
        return holds_lock(file)
    finally:
        os.close(file)


def holds_lock(file: int) -> bool:
    """Say whether another open file holds the lock on this one."""
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    fcntl.flock(file, fcntl.LOCK_UN)
    return False
