"""Flatbuffers read field by field, by the numbers of a schema: nothing is believed, nothing is copied ahead.

Offsets that leave the data raise one of ``DAMAGE``. A sound file's parts do not lie over one another: all of
them together are no larger than the file. A hostile one's may, so that a short file holds more than any
memory: past a few times the file's size the reader refuses.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path
from typing import Final

from edgeml.errors import UnsafeFileError

Bytes = bytes | mmap.mmap
DAMAGE: Final = (struct.error, IndexError, OverflowError)
"""What reading past the end raises: callers say in words which file, and which part of it."""
_OVERLAP: Final = 4
"""Writers may keep equal strings and empty vectors once."""
_ALLOWANCE_BYTES: Final = 4096
_LEAST_TABLE_BYTES: Final = 8
"""The offset to a table, and the table's own to its vtable."""


class Flatbuffer:
    """Reads tables of one buffer and remembers how far they reach."""

    def __init__(self, path: Path, data: Bytes) -> None:
        self.path = path
        self.data = data
        self.end = 0
        self._left = _OVERLAP * len(data) + _ALLOWANCE_BYTES

    def number(self, form: str, place: int) -> int:
        """Read an integer of :mod:`struct`'s form."""
        size = struct.calcsize(form)
        self.end = max(self.end, place + size)
        if place < 0:
            raise IndexError
        return int(struct.unpack_from(form, self.data, place)[0])

    def follow(self, place: int) -> int:
        """Give where the offset at this place leads."""
        return place + self.number("<I", place)

    def field(self, table: int, index: int) -> int:
        """Give where a table's field lies, 0 if it holds its default."""
        vtable = table - self.number("<i", table)
        if 4 + 2 * index >= self.number("<H", vtable):
            return 0
        offset = self.number("<H", vtable + 4 + 2 * index)
        return table + offset if offset else 0

    def scalar(self, table: int, index: int, form: str, default: int = 0) -> int:
        """Read an integer field."""
        place = self.field(table, index)
        return self.number(form, place) if place else default

    def vector(self, table: int, index: int, item_bytes: int) -> tuple[int, int]:
        """Give start and length of a vector of items of that size.

        Raises:
            UnsafeFileError: the file's parts lie over one another.
        """
        place = self.field(table, index)
        if not place:
            return 0, 0
        start = self.follow(place)
        length = self.number("<I", start)
        self.end = max(self.end, start + 4 + length * item_bytes)
        if self.end > len(self.data):
            raise IndexError
        self._spend(length * item_bytes)
        return start + 4, length

    def numbers(self, table: int, index: int, form: str) -> tuple[int, ...]:
        """Read a vector of integers, all of one little-endian form such as ``<i``."""
        start, length = self.vector(table, index, struct.calcsize(form))
        return struct.unpack_from(f"<{length}{form[-1]}", self.data, start) if length else ()

    def content(self, table: int, index: int) -> bytes:
        """Read a vector of bytes, or a string."""
        start, length = self.vector(table, index, 1)
        return self.data[start : start + length]

    def text(self, table: int, index: int) -> str:
        """Read a string; what is not UTF-8 is replaced."""
        return self.content(table, index).decode(errors="replace")

    def strings(self, table: int, index: int) -> list[bytes]:
        """Read a vector of strings."""
        start, length = self.vector(table, index, 4)
        found = []
        for place in range(start, start + 4 * length, 4):
            begin = self.follow(place)
            size_bytes = self.number("<I", begin)
            self._spend(size_bytes + 4)
            self.end = max(self.end, begin + 4 + size_bytes)
            if self.end > len(self.data):
                raise IndexError
            found.append(self.data[begin + 4 : begin + 4 + size_bytes])
        return found

    def real(self, table: int, index: int) -> float:
        """Read a field of a 32-bit float."""
        place = self.field(table, index)
        return float(struct.unpack_from("<f", self.data, place)[0]) if place else 0.0

    def table(self, table: int, index: int) -> int:
        """Give where the table in a field starts, its own bytes checked; 0 if there is none."""
        place = self.field(table, index)
        return self.checked(self.follow(place)) if place else 0

    def tables(self, table: int, index: int) -> list[int]:
        """Give where each table of a vector starts."""
        start, length = self.vector(table, index, 4)
        self._spend(length * _LEAST_TABLE_BYTES)
        return [self.checked(self.follow(start + 4 * place)) for place in range(length)]

    def checked(self, table: int) -> int:
        """Give a table's place after its own bytes and its vtable's were found inside the data."""
        vtable = table - self.number("<i", table)
        self.end = max(self.end, vtable + self.number("<H", vtable), table + self.number("<H", vtable + 2))
        if self.end > len(self.data):
            raise IndexError
        return table

    def _spend(self, size_bytes: int) -> None:
        self._left -= size_bytes
        if self._left < 0:
            raise UnsafeFileError(
                f"{self.path}: its parts lie over one another and unpack to more than {_OVERLAP} times its "
                "size; refused, do not trust its source"
            )
