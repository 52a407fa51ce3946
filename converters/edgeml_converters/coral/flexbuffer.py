"""The part of FlexBuffers that custom options of the Edge TPU's operator use: a map of integers and strings.

A value's kind and width stand in a byte of their own; offsets lead backwards. Reading outside the data raises
one of ``edgeml.flatbuffer.DAMAGE``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

MOST_ITEMS: Final = 32
"""More than any such map or vector has."""
_INT, _UINT, _STRING, _MAP, _VECTOR, _BLOB = 1, 2, 5, 9, 10, 25
_KEY_BYTES: Final = 16

Value = int | memoryview | list["Value"] | dict[str, "Value"] | None


@dataclass(frozen=True, slots=True)
class _Reference:
    """Where a value lies: of what kind, and how wide what stands there is."""

    place: int
    width: int
    packed: int

    @property
    def kind(self) -> int:
        return self.packed >> 2

    @property
    def own_width(self) -> int:
        """Bytes of a number in what the value leads to."""
        return 1 << (self.packed & 3)


def read_map(data: bytes) -> dict[str, Value]:
    """Read a buffer whose root is a map.

    Raises:
        IndexError: it is damaged, or its root is something else.
    """
    if len(data) < 3:  # noqa: PLR2004 - a value, its kind, its width
        raise IndexError
    width = data[-1]
    root = _Reference(len(data) - 2 - width, width, data[-2])
    found = _read(data, root, depth=0)
    if not isinstance(found, dict):
        raise IndexError
    return found


def _read(data: bytes, at: _Reference, depth: int) -> Value:
    if depth > 2:  # noqa: PLR2004 - a map, a vector in it, its items
        raise IndexError
    if at.kind in {_INT, _UINT}:
        return _number(data, at.place, at.width, signed=at.kind == _INT)
    if at.kind not in {_STRING, _BLOB, _VECTOR, _MAP}:
        return None
    place = at.place - _number(data, at.place, at.width)
    length = _number(data, place - at.own_width, at.own_width)
    if at.kind in {_STRING, _BLOB}:
        _check(data, place, length)
        return memoryview(data)[place : place + length]
    if length > MOST_ITEMS:
        raise IndexError
    width = at.own_width
    start = place + length * width
    _check(data, start, length)
    kinds = data[start : start + length]
    values = [
        _read(data, _Reference(place + item * width, width, kinds[item]), depth + 1) for item in range(length)
    ]
    return values if at.kind == _VECTOR else dict(zip(_keys(data, place, width, length), values, strict=True))


def _keys(data: bytes, place: int, width: int, length: int) -> list[str]:
    """Read a map's keys: their vector's offset and width stand before the map's length."""
    start = place - 3 * width - _number(data, place - 3 * width, width)
    key_width = _number(data, place - 2 * width, width)
    found = []
    for item in range(length):
        at = start + item * key_width
        begin = at - _number(data, at, key_width)
        _check(data, begin, 0)
        found.append(data[begin : begin + _KEY_BYTES].partition(b"\0")[0].decode(errors="replace"))
    return found


def _check(data: bytes, place: int, length: int) -> None:
    if place < 0 or place + length > len(data):
        raise IndexError


def _number(data: bytes, place: int, width: int, *, signed: bool = False) -> int:
    if width not in {1, 2, 4, 8}:
        raise IndexError
    _check(data, place, width)
    return int.from_bytes(data[place : place + width], "little", signed=signed)
