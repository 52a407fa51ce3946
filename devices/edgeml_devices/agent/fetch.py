"""Downloads that go on where they stopped, and count for nothing until their hash is right."""

from __future__ import annotations

import hashlib
import os
import random
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, TypeVar

from edgeml.manifest import FileEntry
from edgeml_devices.agent.blobs import BlobStore
from edgeml_devices.agent.disk import clear, make_folder
from edgeml_devices.agent.failures import StepFailedError, UnreachableError, disk_failure
from edgeml_devices.agent.sources import CHUNK_BYTES, BlobSource
from edgeml_devices.messages import Reason

T = TypeVar("T")
FIRST_WAIT_S: Final = 1.0
LONGEST_WAIT_S: Final = 300.0
_SYNC_BYTES: Final = 1024 * 1024
"""What a power cut may cost of a download."""
_SLOW_AFTER_S: Final = 60.0
_WRONG_HASHES: Final = 3
"""A file that came whole and wrong so often is not what the manifest means."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How hard to try, and how fast."""

    attempts: int
    """In a row, without a byte that came."""
    bandwidth_bytes_per_s: int | None = None
    slowest_bytes_per_s: int = 0
    first_wait_s: float = FIRST_WAIT_S


def backoff_s(failures: int, retry_after_s: float | None = None, first_s: float = FIRST_WAIT_S) -> float:
    """Give how long to wait after so many failures in a row: doubled each time, with jitter.

    At least as long as the server asked for.
    """
    wait_s = min(first_s * 2.0 ** min(failures - 1, 30), LONGEST_WAIT_S) * random.uniform(0.5, 1.0)  # noqa: S311 - no secret
    return max(wait_s, retry_after_s or 0.0)


class Fetcher:
    """Fetches files into a store of blobs.

    ``check`` is called often and may raise to end a download, ``sleep`` waits and may raise as well.
    """

    def __init__(
        self,
        store: BlobStore,
        limits: Limits,
        check: Callable[[], None],
        sleep: Callable[[float], None],
    ) -> None:
        self._store = store
        self._limits = limits
        self._check = check
        self._sleep = sleep

    def persist(self, call: Callable[[], T], source: BlobSource) -> T:
        """Call until it gives something, or the attempts are used up.

        Raises:
            StepFailedError: with the reason ``network``.
        """
        failures = 0
        while True:
            self._check()
            try:
                return call()
            except UnreachableError as error:
                failures += 1
                self._wait_or_fail(failures, error, source)

    def fetch(self, source: BlobSource, entry: FileEntry) -> None:
        """Bring one file, from where an earlier attempt stopped.

        Raises:
            StepFailedError: it does not come (``network``), is another (``hash``), or the disk fails.
        """
        make_folder(self._store.folder)
        failures = wrong = 0
        while not self._store.has(entry.sha256, entry.size_bytes):
            self._check()
            before = self._part_bytes(entry)
            try:
                self._attempt(source, entry)
            except UnreachableError as error:
                failures = 0 if self._part_bytes(entry) > before else failures + 1
                self._wait_or_fail(max(failures, 1), error, source)
            except OSError as error:
                raise disk_failure(error, f"cannot write {entry.path}") from error
            else:
                if self._verify(entry):
                    return
                wrong += 1
                if wrong == _WRONG_HASHES:
                    raise StepFailedError(Reason.HASH, f"{entry.path} comes with another sha256 than signed")

    def _wait_or_fail(self, failures: int, error: UnreachableError, source: BlobSource) -> None:
        if not source.patient or failures >= self._limits.attempts:
            raise StepFailedError(Reason.NETWORK, str(error)) from error
        self._sleep(backoff_s(failures, error.retry_after_s, self._limits.first_wait_s))

    def _part_bytes(self, entry: FileEntry) -> int:
        try:
            part = self._store.part(entry.sha256).lstat()
        except OSError:
            return 0
        return part.st_size if stat.S_ISREG(part.st_mode) else 0

    def _attempt(self, source: BlobSource, entry: FileEntry) -> None:
        """Read until the file is whole; what came stays."""
        part = self._store.part(entry.sha256)
        start = self._part_bytes(entry)
        if not start:
            clear(part)
        if start > entry.size_bytes:
            part.unlink()
            start = 0
        if start == entry.size_bytes and start:
            return
        handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        try:
            with source.blob(entry, start) as stream:
                if stream.start != start:
                    os.ftruncate(handle, stream.start)
                os.lseek(handle, stream.start, os.SEEK_SET)
                self._copy(stream.chunks, handle, stream.start, entry)
        finally:
            with suppress(OSError):
                os.fsync(handle)
            os.close(handle)

    def _copy(self, chunks: Iterator[bytes], handle: int, position: int, entry: FileEntry) -> None:
        synced, pace = position, _Pace(self._limits)
        for chunk in chunks:
            self._check()
            if position + len(chunk) > entry.size_bytes:
                os.ftruncate(handle, 0)
                raise StepFailedError(
                    Reason.HASH, f"{entry.path}: more than the {entry.size_bytes} bytes signed come; ended"
                )
            rest = memoryview(chunk)
            while rest:
                rest = rest[os.write(handle, rest) :]
            position += len(chunk)
            if position - synced >= _SYNC_BYTES:
                os.fsync(handle)
                synced = position
            pace.passed(len(chunk), self._sleep)
        if position < entry.size_bytes:
            raise UnreachableError(f"{entry.path}: ended {entry.size_bytes - position} bytes too early")

    def _verify(self, entry: FileEntry) -> bool:
        """Hash a whole part; a wrong one is removed, so that the next attempt begins at 0."""
        part = self._store.part(entry.sha256)
        try:
            with part.open("rb") as file:
                digest = hashlib.sha256()
                while chunk := file.read(CHUNK_BYTES * 16):
                    digest.update(chunk)
                    self._check()
                os.fsync(file.fileno())
            if digest.hexdigest() == entry.sha256:
                self._store.accept(entry.sha256)
                return True
            part.unlink(missing_ok=True)
        except OSError as error:
            raise disk_failure(error, f"cannot keep {entry.path}") from error
        return False


class _Pace:
    """Holds a download below a limit, and ends one that drips."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._began = self._slow_from = time.monotonic()
        self._bytes = self._slow_bytes = 0

    def passed(self, size_bytes: int, sleep: Callable[[float], None]) -> None:
        self._bytes += size_bytes
        self._slow_bytes += size_bytes
        now = time.monotonic()
        limit = self._limits.bandwidth_bytes_per_s
        if limit is not None:
            early_s = self._bytes / limit - (now - self._began)
            if early_s > 0:
                sleep(early_s)
        if now - self._slow_from >= _SLOW_AFTER_S:
            if self._slow_bytes < self._limits.slowest_bytes_per_s * _SLOW_AFTER_S:
                raise UnreachableError(f"only {self._slow_bytes} bytes came in {_SLOW_AFTER_S:g} s")
            self._slow_from, self._slow_bytes = now, 0


def read_limited(chunks: Iterator[bytes], size_bytes: int, what: str) -> bytes:
    """Give the bytes of something small whose size is signed.

    Raises:
        StepFailedError: more come.
        UnreachableError: from the iterator, or fewer come.
    """
    content = bytearray()
    for chunk in chunks:
        content += chunk
        if len(content) > size_bytes:
            raise StepFailedError(Reason.HASH, f"{what}: more than the {size_bytes} bytes signed come")
    if len(content) < size_bytes:
        raise UnreachableError(f"{what}: {len(content)} of {size_bytes} bytes came")
    return bytes(content)
