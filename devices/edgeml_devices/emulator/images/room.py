"""A full disk, said so: apt, tar, pip, mke2fs, qemu-img and the system each have their own words for it."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from edgeml.errors import EdgemlError

_FULL: Final = (errno.ENOSPC, errno.EDQUOT)
_SAID: Final = ("No space left on device", "Disk quota exceeded", "enough free space")


@contextmanager
def room_in(folder: Path) -> Iterator[None]:
    """Give an error for what does not fit into a folder that says so, and what to do.

    Raises:
        EdgemlError: the disk is full; or what was raised inside.
    """
    try:
        yield
    except (OSError, EdgemlError) as error:
        if not _is_of_a_full_disk(error):
            raise
        what = "writing failed" if isinstance(error, OSError) else str(error).splitlines()[0]
        raise EdgemlError(
            f"{what}: a disk is full. {folder} has {_free(folder)} now, without what was unfinished; an "
            "image takes about 1 GB while it is built, a board some 200 MB and what it writes. "
            "Make room (edgeml emulate clean), or take another disk (EDGEML_CACHE_DIR)"
        ) from error


def _is_of_a_full_disk(error: OSError | EdgemlError) -> bool:
    if isinstance(error, OSError) and error.errno in _FULL:
        return True
    return any(said in str(error) for said in _SAID)


def _free(folder: Path) -> str:
    while not folder.exists():
        folder = folder.parent
    return f"{shutil.disk_usage(folder).free / 1e6:.0f} MB"
