"""A ring's file as its reader sees it: hostile until it was looked at, and written while it is read.

It is read, not mapped: a file that its owner cuts would end a process that has it mapped.
"""

from __future__ import annotations

import os
import re
import stat
from array import array
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from edgeml import typed_json
from edgeml.errors import MessageError
from edgeml.telemetry.folder import shares_lock
from edgeml.telemetry.report import MOST_FEATURES, OTHER
from edgeml.telemetry.ring import (
    CALL,
    CLOSED,
    ERRORS,
    HEADER,
    LABELS,
    LEAST_SLOTS,
    MAGIC,
    MOST_ENTRIES,
    MOST_SLOTS,
    PAGE,
    SUFFIX,
    TEXT_BYTES,
    VERSION,
    Layout,
    RingInfo,
    is_sound,
    text_from_bytes,
    vector,
)

_LOOK: Final = 4096
"""Entries that are looked at in one go."""
_ATTEMPTS: Final = 4
_MOST_GAPS: Final = 256
"""Each thread that is killed or interrupted while it writes leaves one."""
_RING: Final = re.compile(r"[0-9a-f]{16}")
_NUMBER: Final = 8
_CLEARED: Final = bytes(_NUMBER)
_LATEST: Final = 1e11
"""Of wall clocks: the year 5138."""

_ONES: Final = int.from_bytes(array("Q", [1]).tobytes() * _LOOK, "little")
_STEPS: Final = int.from_bytes(array("Q", range(_LOOK)).tobytes(), "little")

Read = Callable[[int, int], bytes]
"""Gives so many bytes from a place; fewer where the file ends."""


class DamagedRingError(Exception):
    """A file that is no ring, or one that cannot be. For this package alone: it is counted, not raised."""


@dataclass(frozen=True, slots=True)
class Fresh:
    """What a ring had since a position."""

    entries: bytes
    """Whole entries, oldest first."""
    position: int
    """Number of the last entry that was read or lost."""
    lost: int
    """Entries that were overwritten before they were read."""
    hole: int
    """Number of an entry that is missing though later ones are there; 0: none. Its writer may be about to
    write it."""


def fresh(read: Read, layout: Layout, position: int, *, is_owned: bool = True, hole: int = 0) -> Fresh:
    """Read what was written after ``position``, while it may be overwritten.

    An entry counts if its number is in its place and the same bytes are found there by a second look: what
    is written in between has changed by then. Of a ring that ran over, a quarter of what is still there is
    given up, as its owner is about to overwrite it.

    Args:
        read: of the file.
        layout: of the ring.
        position: where the last reading ended; 0 at first.
        is_owned: whether somebody may write still.
        hole: what the last reading gave: an entry that is missing still will not come.

    Raises:
        DamagedRingError: numbers that cannot be.
    """
    for _ in range(_ATTEMPTS):
        found = _Look(read, layout, position, is_owned, hole).take()
        if found is not None:
            return found
    if not is_owned:
        raise DamagedRingError("changes though nobody owns it, or has entries that cannot be")
    return Fresh(b"", position, 0, 0)  # it is written faster than it is read; next time


class _Look:
    """One attempt."""

    def __init__(self, read: Read, layout: Layout, position: int, is_owned: bool, hole: int) -> None:
        self._read, self._layout, self._is_owned, self._hole = read, layout, is_owned, hole
        self._position = position
        self._step = min(_LOOK, layout.slots)
        self._pieces: list[tuple[int, bytes]] = []
        self._lost = self._missing = 0

    def take(self) -> Fresh | None:
        """Give what is there; ``None`` if it changed meanwhile."""
        for _ in range(_MOST_GAPS + self._layout.slots // self._step):
            if not self._goes_on():
                break
        else:
            raise DamagedRingError("more gaps than can be")
        size = self._layout.entry_bytes
        entries = b"".join(data for _, data in self._pieces)
        is_same = all(self._slots(first, len(data) // size) == data for first, data in self._pieces)
        # an entry begins with a float above 0, whose bytes are never all 0, nor those of two neighbours in a
        # row: where they are, it is about to be overwritten, which clears it first
        is_whole = _CLEARED not in array("d", entries)[:: size // _NUMBER].tobytes()
        return Fresh(entries, self._position, self._lost, self._missing) if is_same and is_whole else None

    def _goes_on(self) -> bool:
        """Read some more, and say whether there may be more still."""
        size, wanted = self._layout.entry_bytes, self._position + 1
        data = self._slots(wanted, self._step)
        numbers = _numbers(data, size)
        count = _leading(numbers, wanted)
        if count:
            self._pieces.append((wanted, data[: count * size]))
            self._position += count
            if sum(len(piece) for _, piece in self._pieces) >= self._layout.slots * size:
                return False
        return count == len(numbers) or self._passes(numbers[count:])

    def _passes(self, numbers: array[int]) -> bool:
        """Pass over what is not there, if anything comes after it, and say whether it does."""
        wanted = self._position + 1
        ahead = self._ahead(numbers, wanted)
        if ahead is None:
            return False
        if ahead == 0:
            begin = self._begin_after_lap()
            self._lost += begin - self._position
            self._position = begin
        elif self._is_owned and self._hole != wanted:
            self._missing = wanted
            return False
        else:
            self._lost += ahead if self._is_owned else 0  # where nobody lives, it was never written
            self._position += ahead
        return True

    def _ahead(self, numbers: array[int], wanted: int) -> int | None:
        """Say how far on the next entry is that is there or was overwritten; ``None``: there is none."""
        if max(numbers) < wanted:
            return None
        slots = self._layout.slots
        for ahead, number in enumerate(numbers):
            if number >= wanted + ahead and (number - wanted - ahead) % slots == 0:
                return ahead
        return None

    def _begin_after_lap(self) -> int:
        """Give the number before the oldest entry that is worth reading."""
        slots = self._layout.slots
        return last_number(self._read, self._layout) - slots + (slots // 4 if self._is_owned else 0)

    def _slots(self, first: int, count: int) -> bytes:
        """Read the slots of entries from ``first`` on; what the file does not have any more is empty."""
        slots = self._layout.slots
        begin = first % slots
        until_end = min(count, slots - begin)
        data = self._some(begin, until_end)
        return data if until_end == count else data + self._some(0, count - until_end)

    def _some(self, slot: int, count: int) -> bytes:
        length = count * self._layout.entry_bytes
        return self._read(self._layout.slots_at + slot * self._layout.entry_bytes, length).ljust(
            length, b"\0"
        )


def last_number(read: Read, layout: Layout) -> int:
    """Give the number of a ring's last entry; 0: it has none.

    Raises:
        DamagedRingError: a number that cannot be.
    """
    size, slots, last = layout.entry_bytes, layout.slots, 0
    for first in range(0, slots, _LOOK):
        length = min(_LOOK, slots - first) * size
        numbers = _numbers(read(layout.slots_at + first * size, length).ljust(length, b"\0"), size)
        if max(numbers) > last:
            here = (number for place, number in enumerate(numbers, first) if number % slots == place)
            last = max(last, max(here, default=0))
    if last > MOST_ENTRIES:
        raise DamagedRingError("counts more than can be")
    return last


def _numbers(data: bytes, size: int) -> array[int]:
    step = size // _NUMBER
    return array("Q", data)[step - 1 :: step]


def _leading(numbers: array[int], first: int) -> int:
    """Count how many of the numbers go on from ``first`` without a gap."""
    # where the last is written, all are, but for gaps
    count = bisect_left(range(len(numbers)), 1, key=lambda place: numbers[place] != first + place)
    so_far = numbers[:count]
    if _is_run(so_far, first):
        return count
    return next((place for place, number in enumerate(so_far) if number != first + place), count)


def _is_run(numbers: array[int], first: int) -> bool:
    """Say whether the numbers go on from ``first``: by one sum of large integers, a third of the time."""
    places = (1 << 8 * _NUMBER * len(numbers)) - 1
    wanted = first * (_ONES & places) + (_STEPS & places)
    return int.from_bytes(numbers.tobytes(), "little") == wanted


# --- the file


class RingFile:
    """A ring's file that is open to be read."""

    __slots__ = ("_file", "emptied_at", "info", "is_closed", "is_owned", "layout", "path")

    def __init__(self, path: Path) -> None:
        """Open a ring.

        Raises:
            FileNotFoundError: it is gone.
            DamagedRingError: it is no ring, or one that cannot be.
        """
        self.path = path
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            self._file = os.open(path, flags)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise DamagedRingError(f"{path}: {error.strerror}") from error
        try:
            # what nobody owns stays as it is while it is open here
            self.is_owned = not shares_lock(self._file)
            self.info, self.layout, self.is_closed, self.emptied_at = self._head()
        except BaseException:
            self.close()
            raise

    def _head(self) -> tuple[RingInfo, Layout, bool, int]:
        status = os.fstat(self._file)
        data = self.read(0, PAGE)
        if not stat.S_ISREG(status.st_mode) or len(data) < HEADER.size:
            raise DamagedRingError(f"{self.path}: no ring")
        magic, version, state, size, slots, labels, errors, length, emptied_at = HEADER.unpack_from(data)
        if (magic, version) != (MAGIC, VERSION) or HEADER.size + length > PAGE:
            raise DamagedRingError(f"{self.path}: no ring, or one of another version")
        try:
            described = typed_json.parse(data[HEADER.size : HEADER.size + length], str(self.path))
            info = typed_json.read(RingInfo, described, str(self.path))
        except MessageError as error:
            raise DamagedRingError(str(error)) from error
        _check(info, self.path)
        entry = vector(len(info.features)) if info.of else CALL
        fits = LEAST_SLOTS <= slots <= MOST_SLOTS and size == entry.size
        if not fits or labels > LABELS or errors > ERRORS or emptied_at > MOST_ENTRIES:
            raise DamagedRingError(f"{self.path}: a layout that cannot be")
        return info, Layout(slots, size, labels, errors), state == CLOSED, emptied_at

    def read(self, place: int, length: int) -> bytes:
        """Read; what the file does not have any more is missing."""
        try:
            return os.pread(self._file, length, place)
        except OSError as error:
            raise DamagedRingError(f"{self.path}: {error.strerror}") from error

    def text(self, code: int) -> str:
        """Give the text of a label or an error in an entry."""
        if not 0 < code <= self.layout.labels + self.layout.errors:
            return OTHER
        return text_from_bytes(self.read(self.layout.text_at(code - 1), TEXT_BYTES)) or OTHER

    def look_again(self) -> None:
        """See whether its owner lives, and what it says of itself.

        Raises:
            DamagedRingError: it is no ring any more.
        """
        self.is_owned = not shares_lock(self._file)
        self.info, self.layout, self.is_closed, self.emptied_at = self._head()

    def close(self) -> None:
        """Let go of the file. Idempotent."""
        file, self._file = self._file, -1
        if file >= 0:
            os.close(file)

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def ring_of(path: Path) -> str | None:
    """Give the ring that a file is named after; ``None`` for another file."""
    return path.stem if path.suffix == SUFFIX and is_ring(path.stem) else None


def is_ring(name: str) -> bool:
    """Say whether a text can be a ring's name."""
    return _RING.fullmatch(name) is not None


def _check(info: RingInfo, path: Path) -> None:
    is_known = info.ring == path.stem and (not info.of or _RING.fullmatch(info.of))
    is_few = bool(info.features) == bool(info.of) and len(info.features) <= MOST_FEATURES
    if not (is_sound(info) and is_known and is_few and 0 <= info.created < _LATEST):
        raise DamagedRingError(f"{path}: names or numbers that cannot be")
