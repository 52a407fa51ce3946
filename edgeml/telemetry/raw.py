"""Inputs themselves, kept as examples where the device's owner allows it (``samples = "raw"``).

The process that ran the model puts a few into files beside its ring, which only its own user and the system's
may read; the reader of the rings takes them into its samples.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Final

MOST_BYTES: Final = 48 * 1024
"""Of one input, and of all inputs in one window: a batch has 256 KiB, of which JSON takes a third more."""
EVERY_S: Final = 10.0
"""An input at random is kept so often, and the least sure of so long a time."""
MOST_NAMES: Final = 8192
"""In the folder that are looked at."""
_NAME: Final = re.compile(r"([0-9a-f]{16})-([1-9][0-9]{0,15})\.raw")


class RawFiles:
    """What one process keeps of one model. For any thread: a race keeps one file more."""

    def __init__(self, folder: Path, ring: str, budget_bytes: int) -> None:
        self._folder, self._ring, self._budget_bytes = folder, ring, budget_bytes
        self._used_bytes = 0
        self._next_at = 0.0
        self._least_sure = 2.0

    def wants(self, now: float, confidence: float | None, *, is_error: bool) -> bool:
        """Say whether this inference's input shall be kept: of all that failed, of some others."""
        if now >= self._next_at:
            self._next_at, self._least_sure = now + EVERY_S, 2.0 if confidence is None else confidence
            return True
        if confidence is not None and confidence < self._least_sure:
            self._least_sure = confidence
            return True
        return is_error

    def keep(self, number: int, raw: bytes) -> None:
        """Write the input of an inference, before the inference itself; nothing where there is no room."""
        if not 0 < len(raw) <= MOST_BYTES:
            return
        if self._used_bytes + len(raw) > self._budget_bytes:
            own = (path for path, ring, _ in raw_files(self._folder) if ring == self._ring)
            self._used_bytes = sum(map(_size, own))
        if self._used_bytes + len(raw) > self._budget_bytes:
            return
        path = self._folder / f"{self._ring}-{number}.raw"
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW
        with suppress(OSError):
            handle = os.open(path, flags, 0o600)
            try:
                self._used_bytes += os.write(handle, raw)
            finally:
                os.close(handle)


def raw_files(folder: Path) -> list[tuple[Path, str, int]]:
    """List the inputs that are kept, with the rings and the numbers of their inferences."""
    found: list[tuple[Path, str, int]] = []
    with suppress(OSError), os.scandir(folder) as entries:
        for entry, _ in zip(entries, range(MOST_NAMES), strict=False):
            name = _NAME.fullmatch(entry.name)
            if name is not None:
                found.append((folder / entry.name, name[1], int(name[2])))
    return found


def read_raw(folder: Path, ring: str, number: int, room_bytes: int) -> bytes | None:
    """Read the input of an inference; ``None`` if it was not kept, or is larger than there is room."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        handle = os.open(folder / f"{ring}-{number}.raw", flags)
    except OSError:
        return None
    try:
        data = os.read(handle, room_bytes + 1)
    except OSError:
        return None
    finally:
        os.close(handle)
    return data if 0 < len(data) <= room_bytes else None


def _size(path: Path) -> int:
    try:
        return path.stat(follow_symlinks=False).st_size
    except OSError:
        return 0
