"""Counts and means come back from their bytes, and bytes that are none are refused."""

from __future__ import annotations

import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeml.telemetry.packed import (
    check_counts,
    check_means,
    pack_counts,
    pack_means,
    unpack_counts,
    unpack_means,
)

COUNTS = st.lists(st.integers(0, 15) | st.integers(0, 300) | st.integers(0, 2**64 - 1), max_size=40)


@given(COUNTS)
def test_counts_come_back(counts: list[int]) -> None:
    packed = pack_counts(counts)
    assert unpack_counts(packed) == tuple(counts)
    check_counts(packed, 40, 2**64)


def test_small_counts_take_half_a_byte() -> None:
    assert len(pack_counts((15,) * 32)) == 17


@pytest.mark.parametrize(
    "packed",
    [b"", b"\1", b"\3x", b"\5" + b"\0" * 7, b"\6", b"\xff" * 9, b"\2" + b"\0" * 41, b"\0" + b"\0" * 21],
)
def test_bytes_that_are_no_counts_are_refused(packed: bytes) -> None:
    with pytest.raises(ValueError, match="count"):
        check_counts(packed, 40, 2**53)


def test_a_count_that_is_too_large_is_refused() -> None:
    check_counts(pack_counts([2**53 - 1]), 40, 2**53)
    with pytest.raises(ValueError, match="below"):
        check_counts(pack_counts([1, 2**53]), 40, 2**53)


@given(st.lists(st.floats(-1e3, 1e3), max_size=64), st.integers(1, 10_000))
def test_means_come_back_to_half_precision(sums: list[float], count: int) -> None:
    packed = pack_means(sums, count)
    check_means(packed, 64, 1e300)
    assert unpack_means(packed, count) == pytest.approx(sums, rel=1e-3, abs=1e-7 * count)


def test_means_beyond_half_precision_are_kept_as_they_are() -> None:
    assert unpack_means(pack_means((1e9, -3.5), 1), 1) == (1e9, -3.5)


@pytest.mark.parametrize(
    "packed",
    [
        b"x12",
        b"e1",
        b"d1234567",
        b"e" + b"\0\0" * 65,
        *(b"e\0\0" + struct.pack("<e", one) for one in (math.inf, -math.inf, math.nan)),
        *(b"d" + struct.pack("<d", one) for one in (math.inf, math.nan, 1e301)),
    ],
)
def test_bytes_that_are_no_means_are_refused(packed: bytes) -> None:
    with pytest.raises(ValueError, match=r"mean|number"):
        check_means(packed, 64, 1e300)
