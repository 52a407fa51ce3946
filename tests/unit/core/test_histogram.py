"""The histogram of latencies: OpenTelemetry's buckets at scale 3, merged without loss."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeml.errors import MessageError
from edgeml.histogram import HIGHEST, LOWEST, Histogram, bucket
from edgeml.tally import add_times

positive = st.floats(1e-6, 8e7)


@given(positive)
def test_a_bucket_holds_values_above_its_lower_edge_up_to_its_upper_one(value: float) -> None:
    place = bucket(value)
    slack = 1 + 1e-12
    assert 2 ** (place / 8) / slack < value <= 2 ** ((place + 1) / 8) * slack


@pytest.mark.parametrize(
    ("value", "place"),
    [(1.0, -1), (2.0, 7), (1.01, 0), (0.0, LOWEST), (-1.0, LOWEST), (math.nan, LOWEST), (math.inf, HIGHEST)],
)
def test_edges_belong_below_and_odd_values_to_the_ends(value: float, place: int) -> None:
    assert bucket(value) == place


@given(st.lists(positive), st.lists(positive))
def test_merging_is_the_same_as_adding_all(left: list[float], right: list[float]) -> None:
    merged = Histogram.of(left)
    merged.merge(Histogram.of(right))
    assert merged == Histogram.of([*left, *right])
    assert merged.total == len(left) + len(right)


@given(st.lists(positive, min_size=1), st.floats(0, 1))
def test_a_quantile_is_off_by_half_a_bucket_at_most(values: list[float], q: float) -> None:
    exact = sorted(values)[max(1, math.ceil(q * len(values))) - 1]
    assert Histogram.of(values).quantile(q) == pytest.approx(exact, rel=0.0443)


def test_there_is_no_quantile_of_nothing() -> None:
    assert Histogram().quantile(0.5) is None
    with pytest.raises(ValueError, match="share"):
        Histogram().quantile(95)


@given(st.lists(positive))
def test_json_gives_it_back(values: list[float]) -> None:
    histogram = Histogram.of(values)
    assert Histogram.from_json(histogram.to_json()) == histogram


@pytest.mark.parametrize(
    "counts", [{"x": 1}, {"1.0": 1}, {"999": 1}, {" 1": 1}, {"1": -1}, {"1": True}, {"1": 2**63}]
)
def test_what_is_no_histogram_is_refused(counts: dict[str, int]) -> None:
    with pytest.raises(MessageError, match="histogram"):
        Histogram.from_json(counts)


@given(st.lists(st.integers(0, 10**15)))
def test_many_times_at_once_count_as_one_by_one(times_ns: list[int]) -> None:
    at_once = Histogram()
    add_times(at_once, np.array(times_ns, np.float64))
    assert at_once == Histogram.of(max(time, 1) / 1e6 for time in times_ns)
