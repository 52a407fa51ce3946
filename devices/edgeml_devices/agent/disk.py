"""Writes that a power cut leaves whole: what is renamed into place was synced before, its folder after."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final

LOG: Final = logging.getLogger("edgeml.agent")
_COPY_INSTEAD: Final = frozenset({errno.EPERM, errno.EXDEV, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS})
"""What ``link`` answers where hard links cannot be: FAT, another file system, too many of them."""
_CHUNK_BYTES: Final = 1024 * 1024


def sync_folder(path: Path) -> None:
    """Put a folder's entries on the disk."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_folder(path: Path) -> None:
    """Make a folder with its parents, each on the disk when this returns."""
    if path.is_dir():
        return
    make_folder(path.parent)
    with suppress(FileExistsError):
        os.mkdir(path, 0o755)  # noqa: PTH102 - see replace_link
    sync_folder(path.parent)


def read_file(path: Path, limit_bytes: int = -1) -> bytes:
    """Read a file, at most so many bytes of it; never waits, as for a pipe in its place.

    Raises:
        OSError: it cannot be read, or is no regular file.
    """
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        with open(handle, "rb", closefd=False) as file:
            return file.read(limit_bytes)
    finally:
        os.close(handle)


def clear(path: Path) -> None:
    """Remove what an earlier start left of a scratch file, or what somebody put in its place."""
    try:
        os.unlink(path)  # noqa: PTH108 - see replace_link
    except FileNotFoundError:
        return
    except (IsADirectoryError, PermissionError):
        if not path.is_dir():
            raise
        LOG.warning("%s was a folder where a file belongs; removed", path)
        shutil.rmtree(path)


def write_file(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Write a file whole or not at all; on the disk when this returns. For one writer at a time.

    Raises:
        OSError: nothing was changed.
    """
    scratch = path.with_name(f".{path.name}.new")
    clear(scratch)
    handle = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        try:
            rest = memoryview(content)
            while rest:
                rest = rest[os.write(handle, rest) :]
            os.fchmod(handle, mode)
            os.fsync(handle)
        finally:
            os.close(handle)
        try:
            os.replace(scratch, path)  # noqa: PTH105 - see replace_link
        except IsADirectoryError:
            aside = path.with_name(f"{path.name}.aside")
            os.rename(path, aside)  # noqa: PTH104 - see replace_link
            LOG.warning("%s was a folder where a file belongs; it is %s now", path, aside.name)
            os.replace(scratch, path)  # noqa: PTH105 - see replace_link
    except BaseException:
        with suppress(OSError):
            os.unlink(scratch)  # noqa: PTH108
        raise
    sync_folder(path.parent)


def replace_link(link: Path, target: str) -> None:
    """Let ``link`` lead to ``target``: before, it leads where it did; after, there; never nowhere.

    The calls are written out as the system has them: tests cut the power before and after each.
    """
    scratch = link.with_name(f".{link.name}.new")
    clear(scratch)
    os.symlink(target, scratch)  # noqa: PTH211
    os.replace(scratch, link)  # noqa: PTH105
    sync_folder(link.parent)


def remove_link(link: Path) -> None:
    """Remove a link or file; nothing happens where there is none."""
    with suppress(FileNotFoundError):
        os.unlink(link)  # noqa: PTH108
        sync_folder(link.parent)


def link_file(source: Path, target: Path) -> None:
    """Give a file that is on the disk a second name; a copy where the file system has no hard links."""
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in _COPY_INSTEAD:
            raise
        with source.open("rb") as content, target.open("xb") as copy:
            shutil.copyfileobj(content, copy, _CHUNK_BYTES)
            copy.flush()
            os.fsync(copy.fileno())


def sync_tree(folder: Path) -> None:
    """Put the entries of a folder and of all folders in it on the disk, the innermost first."""
    for inner, _, _ in os.walk(folder, topdown=False):
        sync_folder(Path(inner))


def remove_tree(folder: Path) -> None:
    """Remove a folder with all in it; nothing happens where there is none."""
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        return
    except NotADirectoryError:
        LOG.warning("%s was a file where a folder belongs; removed", folder)
        os.unlink(folder)  # noqa: PTH108 - see replace_link
