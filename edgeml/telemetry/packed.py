"""Counts and means as bytes: so MessagePack carries them, and so the server keeps them.

Counts are exact: half a byte each, one, two, four or eight, as the largest needs. Means of random features
are rounded to half precision, 0.05 %: their sampling error is far above.
"""

from __future__ import annotations

import math
import struct
import sys
from array import array
from collections.abc import Sequence
from typing import Any, Final

_NIBBLES: Final = bytes.maketrans(b"0123456789abcdef", bytes(range(16)))
_WIDE: Final = (("H", 1 << 16), ("I", 1 << 32), ("Q", 1 << 64))
_EVEN, _ODD, _BYTES, _H = range(4)
"""Kinds by the first byte: half bytes, an even or an odd number of them; bytes; then those of ``_WIDE``."""
_NARROW: Final = (b"\0", b"\2")
_HALF: Final = b"e"
_DOUBLE: Final = b"d"
_NOT_FINITE: Final = bytes(one for one in range(256) if one & 0x7C == 0x7C)  # noqa: PLR2004 - exponent all ones
"""High bytes of halves that are infinite or no numbers."""


def pack_counts(counts: Sequence[int]) -> bytes:
    """Give counts from 0 to 2**64 - 1 as bytes.

    Raises:
        OverflowError: one is below or above that.
    """
    try:
        narrow = bytes(counts)
    except ValueError:
        return _pack_wide(counts)
    digits = narrow.hex()
    if not digits[::2].strip("0"):
        return bytes.fromhex(f"01{digits[1::2]}0" if len(narrow) & 1 else f"00{digits[1::2]}")
    return b"\2" + narrow


def _pack_wide(counts: Sequence[int]) -> bytes:
    most = max(counts)
    for kind, (code, above) in enumerate(_WIDE, _H):
        if most < above:
            return bytes([kind]) + _little(array(code, counts)).tobytes()
    raise OverflowError(f"{most} does not fit into 64 bits")


def unpack_counts(packed: bytes) -> tuple[int, ...]:
    """Give the counts that :func:`pack_counts` packed."""
    return tuple(iterable_counts(packed))


def iterable_counts(packed: bytes) -> bytes | array[Any]:
    """Give the same, without a tuple of it."""
    kind = packed[0]
    if kind < _BYTES:
        counts = packed[1:].hex().encode().translate(_NIBBLES)
        return counts[:-1] if kind == _ODD else counts
    if kind == _BYTES:
        return packed[1:]
    wide = array(_WIDE[kind - _H][0])
    wide.frombytes(packed[1:])
    return _little(wide)


def check_counts(packed: bytes, longest: int, above: int) -> None:
    """Check what a stranger packed: at most ``longest`` counts, each below ``above``.

    Raises:
        ValueError: says what is wrong.
    """
    if packed[:1] in _NARROW and len(packed) <= longest // 2:
        # nearly all: whatever the bytes are, they are counts
        return
    size, kind = len(packed) - 1, packed[0] if packed else -1
    if kind in {_EVEN, _ODD}:
        number = 2 * size - kind
    elif kind == _BYTES:
        number = size
    elif 0 <= kind < _H + len(_WIDE):
        width = 2 << (kind - _H)
        if size % width:
            raise ValueError(f"{size} bytes are no counts of {width} bytes each")
        number = size // width
        if _WIDE[kind - _H][1] > above and max(iterable_counts(packed), default=0) >= above:
            raise ValueError(f"a count is not below {above}")
    else:
        raise ValueError(f"counts of kind {kind} are not known")
    if not 0 <= number <= longest:
        raise ValueError(f"{number} counts, there may be {longest}")


def _little(numbers: array[Any]) -> array[Any]:
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers


def pack_means(sums: Sequence[float], count: int) -> bytes:
    """Give sums over ``count`` calls as bytes."""
    if count:
        means = [one / count for one in sums]
        try:
            return _HALF + struct.pack(f"<{len(means)}e", *means)
        except OverflowError:
            pass
    return _DOUBLE + struct.pack(f"<{len(sums)}d", *sums) if sums else b""


def unpack_means(packed: bytes, count: int) -> tuple[float, ...]:
    """Give the sums that :func:`pack_means` packed."""
    if not packed:
        return ()
    halves = packed[:1] == _HALF
    found = struct.unpack(f"<{(len(packed) - 1) // (2 if halves else 8)}{packed[:1].decode()}", packed[1:])
    return tuple(one * count for one in found) if halves else found


def check_means(packed: bytes, longest: int, largest: float) -> None:
    """Check what a stranger packed: at most ``longest`` numbers, none beyond ``largest``.

    Raises:
        ValueError: says what is wrong.
    """
    kind, size = packed[:1], len(packed) - 1
    width = {b"": 1, _HALF: 2, _DOUBLE: 8}.get(kind)
    if width is None or (size % width and kind):
        raise ValueError(f"{len(packed)} bytes are no means")
    if size // width > longest:
        raise ValueError(f"{size // width} numbers, there may be {longest}")
    if kind == _HALF:
        high = packed[2::2]
        finite = len(high.translate(None, _NOT_FINITE)) == len(high)
    else:
        finite = all(math.isfinite(one) and abs(one) <= largest for one in unpack_means(packed, 1))
    if not finite:
        raise ValueError("a number is infinite or none, or too large")
