"""Whether a snapshot holds what was written: the sums of its files, kept beside them."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from edgeml.errors import EngineError
from edgeml_devices.emulator.machine.launch import Snapshot

SUMS: Final = "SHA256SUMS"
MEMORY_SUM: Final = "memory.sum"
_CHUNK_BYTES: Final = 1 << 16
_ZEROS: Final = bytes(_CHUNK_BYTES)
_OTHER: Final = "does not hold what was written"


def write_sums(made: Snapshot) -> None:
    """Write the sums of a snapshot's files into its folder."""
    (made.folder / SUMS).write_bytes(_sums(made))
    (made.folder / MEMORY_SUM).write_text(f"{_memory_sum(made.memory)}\n", encoding="ascii")


def damage(found: Snapshot, memory_bytes: int) -> str | None:
    """Say what is wrong with a snapshot, as far as that is seen at once: of its memory, the size."""
    for part, least_bytes in ((found.memory, memory_bytes), (found.state, 1), (found.disk, 1)):
        if not part.is_file() or part.stat().st_size < least_bytes:
            return f"{part.name} is missing or cut off"
    sums = found.folder / SUMS
    if not sums.is_file() or sums.read_bytes() != _sums(found):
        return f"it {_OTHER}"
    return None


def memory_damage(found: Snapshot) -> str | None:
    """Say what is wrong with a snapshot's memory; takes a tenth of a second and more."""
    try:
        kept = (found.folder / MEMORY_SUM).read_text(encoding="ascii", errors="replace").strip()
        return None if kept == _memory_sum(found.memory) else f"its memory {_OTHER}"
    except OSError as error:
        return f"its memory cannot be checked: {error.strerror}"


@contextmanager
def checked_memory(found: Snapshot, process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Check a snapshot's memory while a machine goes on from it; one with another memory is killed at once.

    Raises:
        EngineError: the memory is damaged; or what was raised inside.
    """

    def look() -> str | None:
        fault = memory_damage(found)
        if fault is not None:
            process.kill()  # else it would be waited for
        return fault

    failed: EngineError | None = None
    with ThreadPoolExecutor(1) as pool:
        looking = pool.submit(look)
        try:
            yield
        except EngineError as error:
            failed = error
    fault = looking.result()
    if fault is not None:
        raise EngineError(f"the snapshot is damaged: {fault}") from failed
    if failed is not None:
        raise failed


def _sums(found: Snapshot) -> bytes:
    """Give what sha256sum prints of state and disk."""
    lines = [
        f"{hashlib.sha256(part.read_bytes()).hexdigest()}  {part.name}\n"
        for part in (found.state, found.disk)
    ]
    return "".join(lines).encode()


def _memory_sum(memory: Path) -> str:
    """Give the SHA-256 of a memory's parts that are not zero, each behind its place: most of it is zero."""
    digest = hashlib.sha256()
    with memory.open("rb", buffering=0) as file:
        for place in _places_with_data(file.fileno()):
            data = os.pread(file.fileno(), _CHUNK_BYTES, place)
            if data != _ZEROS:
                digest.update(place.to_bytes(8))
                digest.update(data)
    return digest.hexdigest()


def _places_with_data(handle: int) -> Iterator[int]:
    """Give where the chunks of a file begin that are not holes of it."""
    place = 0
    while True:
        try:
            place = os.lseek(handle, place, os.SEEK_DATA) // _CHUNK_BYTES * _CHUNK_BYTES
        except OSError:  # nothing but a hole follows
            return
        yield place
        place += _CHUNK_BYTES
