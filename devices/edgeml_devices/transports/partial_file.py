"""A file that arrives in parts: what came before a cut stays beside it and is not fetched again."""

from __future__ import annotations

import hashlib
import os
import time
from typing import IO, TYPE_CHECKING, Final, Self

from edgeml.errors import TransportError
from edgeml.transport import Progress
from edgeml_devices.transports.posix_shell import part_path

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import TracebackType

_READ_BYTES: Final = 1 << 20
_REPORT_EVERY_S: Final = 0.5
_REPORTS: Final = 100


def file_size_and_sha256(file: IO[bytes], limit: int | None = None) -> tuple[int, str]:
    """Read an open file from where it stands, at most ``limit`` bytes: size in bytes, SHA-256 in hex."""
    digest, size = hashlib.sha256(), 0
    while data := file.read(_READ_BYTES if limit is None else min(_READ_BYTES, limit - size)):
        digest.update(data)
        size += len(data)
    return size, digest.hexdigest()


class PartialFile:
    """The part of a file of known content, beside its place; :meth:`finish` gives it its name.

    A part of that content which an earlier transfer left is continued. It stays when the transfer
    is cut; it goes when its hash turns out wrong.
    """

    def __init__(self, path: Path, whole_bytes: int, sha256: str) -> None:
        self.path = path
        self.whole_bytes = whole_bytes
        self.size_bytes = 0
        self._sha256 = sha256
        self._part = path.with_name(part_path(path.name, sha256))
        self._digest = hashlib.sha256()
        self._file: IO[bytes]

    @property
    def missing_bytes(self) -> int:
        """Give what has not arrived."""
        return self.whole_bytes - self.size_bytes

    def __enter__(self) -> Self:
        self._file = self._part.open("a+b")
        self._file.seek(0)
        while data := self._file.read(_READ_BYTES):
            self._digest.update(data)
            self.size_bytes += len(data)
        if self.size_bytes > self.whole_bytes:
            self._file.truncate(0)
            self.size_bytes, self._digest = 0, hashlib.sha256()
        return self

    def write(self, data: bytes) -> None:
        """Append what has arrived."""
        self._file.write(data)
        self._digest.update(data)
        self.size_bytes += len(data)

    def finish(self, doing: str) -> None:
        """Check the hash and give the file its name.

        Raises:
            TransportError: the content is another; the part is removed.
        """
        if self._digest.hexdigest() != self._sha256:
            self._part.unlink()
            raise TransportError(f"{doing}: it changed or was damaged on the way; try again")
        self._file.flush()
        os.fsync(self._file.fileno())
        self._part.replace(self.path)
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        if self.size_bytes == 0 and kind is not None:
            self._part.unlink(missing_ok=True)


class Meter:
    """Tells at each hundredth of a file, and twice a second, how far its transfer is and how fast."""

    def __init__(
        self, name: str, begun_bytes: int, whole_bytes: int, callback: Callable[[Progress], None] | None
    ) -> None:
        self._name = name
        self._begun_bytes = begun_bytes
        self._done_bytes = begun_bytes
        self._whole_bytes = whole_bytes
        self._callback = callback
        self._begun = time.monotonic()
        self._reported = self._begun
        self._step = -1

    def add(self, size_bytes: int) -> None:
        """Count bytes that have arrived."""
        self._done_bytes += size_bytes
        if self._callback is None:
            return
        now = time.monotonic()
        step = self._done_bytes * _REPORTS // self._whole_bytes
        if now - self._reported >= _REPORT_EVERY_S or step > self._step:
            self._reported, self._step = now, step
            rate = (self._done_bytes - self._begun_bytes) / max(now - self._begun, 1e-6)
            self._callback(Progress(self._name, self._done_bytes, self._whole_bytes, rate))
