"""Folders of one process, for as long as it needs them; those of killed ones go with the next."""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from edgeml_devices.emulator.images.cache import remove_tree

_LOCKED_WITHIN_S: Final = 60.0
"""A folder that is younger may be one that its process is about to lock."""


@contextmanager
def own_folder(prefix: str, parent: Path | None = None) -> Iterator[Path]:
    """Give a folder that goes afterwards. Removes those whose process was killed: nobody holds their lock.

    Args:
        prefix: of its name, and of theirs.
        parent: where they are; the folder for temporary files by default.
    """
    place = parent or Path(tempfile.gettempdir())
    for left in place.glob(f"{prefix}*"):
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > _LOCKED_WITHIN_S:
                with _locked(left):
                    remove_tree(left)
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=place))
    try:
        with _locked(folder):
            yield folder
    finally:
        remove_tree(folder)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold a folder's lock.

    Raises:
        OSError: another process has it, or the folder is another user's.
    """
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)
