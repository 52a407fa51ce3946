"""Blobs: files by their SHA-256, each once. One that has its name is whole and verified.

``HASH.part`` is what arrived so far of one that is being uploaded. Several processes may share the folder.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import hashlib
import os
import re
import shutil
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import Final

from edgeml_devices.server.refusals import RefusalError

HASH: Final = re.compile(r"[0-9a-f]{64}")
_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_RESERVE_BYTES: Final = 64 * 1024 * 1024
"""Left free for the database."""
_WRITE_BYTES: Final = 1024 * 1024
_STALE_S: Final = 7 * 86400.0
"""Nobody goes on with an upload after so long."""


class BlobStore:
    """A folder of blobs: ``ab/abcd…``."""

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self._folder = folder
        self._limit_bytes = limit_bytes

    def open(self) -> None:
        """Make the folder."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def path(self, sha256: str) -> Path:
        """Give where a blob is, or will be.

        Raises:
            RefusalError: 404: not a hash, so nothing can be there.
        """
        if not HASH.fullmatch(sha256):
            raise RefusalError(404, "a blob's name is its SHA-256: 64 digits of lower-case hex")
        return self._folder / sha256[:2] / sha256

    def size_bytes(self, sha256: str) -> int | None:
        """Give a blob's size; ``None``: it is not there, or not whole."""
        try:
            return self.path(sha256).stat().st_size
        except FileNotFoundError:
            return None

    def arrived_bytes(self, sha256: str) -> int:
        """Give how much of an upload is there."""
        try:
            return _part(self.path(sha256)).stat().st_size
        except FileNotFoundError:
            return 0

    async def append(self, sha256: str, offset: int, total_bytes: int, content: AsyncIterator[bytes]) -> bool:
        """Take a piece of an upload that begins at ``offset``; say whether the blob is whole now.

        What arrives stays when the caller breaks off.

        Raises:
            RefusalError: 409: another offset than what is there, or the whole has another hash; 413; 507.
        """
        path = self.path(sha256)
        if total_bytes > self._limit_bytes:
            raise RefusalError(413, f"a blob may have {self._limit_bytes} bytes, this has {total_bytes}")
        try:
            with self._locked(path) as part:
                if self.size_bytes(sha256) is not None:
                    return True
                self._require_room(part, offset, total_bytes)
                arrived = await _write(part, total_bytes, content)
                if arrived < total_bytes:
                    return False
                await asyncio.to_thread(_finish, part, path, sha256)
                return True
        except OSError as error:
            if error.errno not in _FULL:
                raise
            _part(path).unlink(missing_ok=True)
            raise RefusalError(507, _NO_ROOM) from error

    def add(self, content: bytes) -> str:
        """Store a small blob at once; give its hash."""
        sha256 = hashlib.sha256(content).hexdigest()
        path = self.path(sha256)
        if self.size_bytes(sha256) is None:
            with self._locked(path) as part:
                part.truncate(0)
                part.write(content)
                _finish(part, path, sha256)
        return sha256

    def remove_stale(self, now: float | None = None) -> int:
        """Remove uploads that nobody goes on with; give how many."""
        oldest = (time.time() if now is None else now) - _STALE_S
        stale = [part for part in self._folder.glob("*/*.part") if part.stat().st_mtime < oldest]
        for part in stale:
            part.unlink(missing_ok=True)
        return len(stale)

    @contextmanager
    def _locked(self, path: Path) -> Iterator[FileIO]:
        """Give the upload's file, to this task alone among all processes."""
        path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            # "a": made where it lacks, never cut
            with _part(path).open("a+b", buffering=0) as part:
                try:
                    fcntl.flock(part, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError as error:
                    raise RefusalError(
                        503, "somebody else uploads this blob just now", headers={"Retry-After": "2"}
                    ) from error
                if _is_named(part, _part(path)):
                    yield part
                    return
            # it was renamed or removed between open and lock

    def _require_room(self, part: FileIO, offset: int, total_bytes: int) -> None:
        arrived = os.fstat(part.fileno()).st_size
        if offset != arrived:
            raise RefusalError(409, f"the upload goes on at byte {arrived}, not at {offset}")
        if shutil.disk_usage(self._folder).free - _RESERVE_BYTES < total_bytes - arrived:
            if not arrived:
                Path(part.name).unlink()
            raise RefusalError(507, _NO_ROOM)


_NO_ROOM: Final = "the server's disk is full; free some space there and upload again"


def _part(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")


def _is_named(file: FileIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


async def _write(part: FileIO, total_bytes: int, content: AsyncIterator[bytes]) -> int:
    """Append what comes; give how much is there then."""
    arrived = os.fstat(part.fileno()).st_size
    waiting = bytearray()
    try:
        async for chunk in content:
            waiting += chunk
            if arrived + len(waiting) > total_bytes:
                waiting = waiting[: total_bytes - arrived]
                raise RefusalError(413, f"more than the {total_bytes} bytes that were announced")
            if len(waiting) >= _WRITE_BYTES:
                piece, waiting = waiting, bytearray()
                await asyncio.to_thread(_write_all, part, piece)
                arrived += len(piece)
    finally:
        # also what came before the caller broke off
        _write_all(part, waiting)
    return arrived + len(waiting)


def _write_all(part: FileIO, content: bytearray) -> None:
    view = memoryview(content)
    while view:
        view = view[part.write(view) :]


def _finish(part: FileIO, path: Path, sha256: str) -> None:
    """Verify what arrived, and give it its name; remove it if it is something else."""
    part.seek(0)
    found = hashlib.file_digest(part, "sha256").hexdigest()
    if found != sha256:
        _part(path).unlink()
        raise RefusalError(
            409, f"what arrived has the hash {found}, not {sha256}; upload it again from the start"
        )
    os.fsync(part.fileno())
    os.fchmod(part.fileno(), 0o444)
    _part(path).rename(path)
    _sync(path.parent)
    _sync(path.parent.parent)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
