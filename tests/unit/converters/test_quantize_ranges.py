"""The streamed histogram that ranges are read from."""

from __future__ import annotations

import numpy as np
import pytest
from edgeml_converters.quantize.ranges import BINS, Histogram

RELATIVE_STEP = 1 / 32
"""Bins keep five bits of mantissa."""


def filled(*parts: np.ndarray, binned: bool = True) -> Histogram:
    histogram = Histogram(binned=binned)
    for part in parts:
        histogram.add(part)
    return histogram


def normal(seed: int, count: int = 20_000) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=count).astype(np.float32)


def test_all_values_give_the_exact_extremes() -> None:
    values = normal(1)
    assert filled(values).percentile(100.0) == (float(values.min()), float(values.max()))


@pytest.mark.parametrize("share", [99.99, 99.9, 99.0, 90.0])
def test_a_percentile_is_numpys_within_one_bin(share: float) -> None:
    values = normal(2, 200_000)
    low, high = filled(values).percentile(share)
    tail = (100 - share) / 2
    wanted_low, wanted_high = np.percentile(values, [tail, 100 - tail])
    assert low == pytest.approx(wanted_low, rel=RELATIVE_STEP)
    assert high == pytest.approx(wanted_high, rel=RELATIVE_STEP)


def test_an_outlier_is_cut_by_a_percentile_and_kept_by_the_extremes() -> None:
    values = np.append(np.linspace(0, 1, 100_000), 1000).astype(np.float32)
    histogram = filled(values)
    assert histogram.percentile(99.99)[1] == pytest.approx(1.0, rel=RELATIVE_STEP)
    assert histogram.percentile(100.0)[1] == 1000.0


def test_a_percentile_is_never_wider_than_the_extremes() -> None:
    low, high = filled(np.full(10, 3.3, np.float32)).percentile(99.999)
    assert low == high == pytest.approx(3.3)


def test_values_above_zero_only_start_at_zero_or_above() -> None:
    assert filled(np.abs(normal(3))).percentile(99.9)[0] >= 0.0


def test_the_order_of_the_samples_changes_nothing() -> None:
    parts = [normal(seed, 500) for seed in range(20)]
    forward, backward = filled(*parts), filled(*parts[::-1])
    for share in (100.0, 99.999, 99.9, 99.0):
        assert forward.percentile(share) == backward.percentile(share)


def test_memory_is_the_bins_however_many_values_come() -> None:
    histogram = filled(*[normal(seed) for seed in range(5)])
    assert histogram._counts is not None
    assert histogram._counts.nbytes == BINS * 8
    assert histogram.count == int(histogram._counts.sum()) == 100_000


def test_extremes_alone_need_no_bins() -> None:
    values = normal(4)
    histogram = filled(values, binned=False)
    assert histogram._counts is None
    assert histogram.percentile(99.9) == (float(values.min()), float(values.max()))


def test_least_error_cuts_a_lone_outlier_and_keeps_an_even_spread() -> None:
    even = np.linspace(-1, 1, 1_000_000).astype(np.float32)
    low, high = filled(even).least_error(4.0)
    assert (low, high) == pytest.approx((-1.0, 1.0), rel=RELATIVE_STEP)
    assert filled(even, np.array([3.0], np.float32)).least_error(1.0)[1] < 2.0


def test_what_is_cut_weighs_as_it_is_told() -> None:
    values = np.append(normal(5, 100_000), 8.0).astype(np.float32)
    widths = [filled(values).least_error(clipping)[1] for clipping in (1.0, 16.0, 1e6)]
    assert widths == sorted(widths)
    assert widths[0] < widths[-1] == pytest.approx(8.0, rel=RELATIVE_STEP)


def test_exact_zeros_do_not_narrow_a_range() -> None:
    values = np.abs(normal(6))
    padded = np.append(values, np.zeros(1_000_000, np.float32))
    assert filled(padded).least_error(4.0) == filled(values).least_error(4.0)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_told_and_not_counted(bad: float) -> None:
    histogram = filled(np.array([1.0, bad], np.float32))
    assert histogram.not_finite
    assert histogram.count == 0
