"""Where the rings of a device are, whoever records and whoever reads."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Final

SHARED_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - what is in it is owned, and read with care
FOLDER_MODE: Final = 0o1777
"""Every process of the device may record; none may take away another's ring."""


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


def is_owned(path: Path) -> bool:
    """Say whether a process that lives owns a ring; one that cannot be looked at counts as owned."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return True
    try:
        return not shares_lock(file)
    finally:
        os.close(file)


def shares_lock(file: int) -> bool:
    """Take the lock that other readers may have too, until the file is closed; say whether it was free."""
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
