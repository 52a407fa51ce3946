"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def replacing_file(path: Path) -> Iterator[Path]:
    """Give a path beside ``path`` to write to; renamed over it on success, removed on any failure."""
    with _naming(path):
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        os.close(handle)
        scratch = Path(name)
        try:
            yield scratch
            _sync(scratch)
            scratch.chmod(0o666 & ~_umask())
            scratch.replace(path)
            _sync(path.parent)
        except BaseException:
            scratch.unlink(missing_ok=True)
            raise


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """Give a binary file to write that becomes ``path`` on success; a killed process leaves nothing.

    The file has no name until it is whole. Where the file system cannot do that (no ``O_TMPFILE``),
    it is a scratch file as of :func:`replacing_file`.
    """
    with _naming(path):
        try:
            handle = os.open(path.parent, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o666)
        except (AttributeError, OSError) as error:
            if isinstance(error, (FileNotFoundError, PermissionError)):
                raise
            with replacing_file(path) as scratch, scratch.open("w+b") as file:
                yield file
            return
        with os.fdopen(handle, "w+b") as file:
            yield file
            file.flush()
            os.fsync(handle)
            name = path.parent / f".{path.name}.{secrets.token_hex(6)}"
            # with a folder handle Python calls linkat, which can follow the link in /proc
            os.link(f"/proc/self/fd/{handle}", name, src_dir_fd=handle, follow_symlinks=True)
        try:
            name.replace(path)
        except BaseException:
            name.unlink(missing_ok=True)
            raise
        _sync(path.parent)


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Give an empty folder beside ``path``; it takes the place of ``path`` on success."""
    with _naming(path):
        scratch = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        try:
            yield scratch
            scratch.chmod(0o777 & ~_umask())
            _take_place(scratch, path)
            _sync(path.parent)
        except BaseException:
            shutil.rmtree(scratch, ignore_errors=True)
            raise


def _take_place(scratch: Path, path: Path) -> None:
    if not path.exists():
        scratch.rename(path)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{path.name}.old.", dir=path.parent))
    try:
        path.rename(old / path.name)
        try:
            scratch.rename(path)
        except BaseException:
            (old / path.name).rename(path)
            raise
    finally:
        shutil.rmtree(old)


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Give an OSError the name that the user knows, ``path``, not that of the scratch beside it.

    A pipe or device in its place is one: as root, ``/dev/stdout`` would become a file.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        raise FileExistsError(errno.EEXIST, "a pipe or device, not a place for a file", str(path))
    try:
        yield
    except OSError as error:
        named = str(error.filename)
        if error.filename is None or named == str(path.parent) or f"/.{path.name}." in f"/{named}":
            error.filename = str(path)
        raise


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
