"""Quantiles and rates by group, with how sure they are."""

from __future__ import annotations

import asyncio
import random

import numpy as np
import pytest
from edgeml_devices.server.telemetry.questions import (
    Question,
    dimensions,
    quantile_interval,
    quantiles,
    rates,
    share_interval,
)
from edgeml_devices.server.telemetry.store import HourRow, Selection, WindowRow
from hypothesis import given
from hypothesis import strategies as st

from edgeml.errors import UsageError
from edgeml.telemetry.exponential import ExponentialHistogram, histogram_of
from edgeml.telemetry.report import ModelWindow
from tests.unit.devices.server.telemetry.memory_store import store_of

ALL = Selection(0, 10 * 3600)


def hour(at: int, device: str, release: int, latency: ExponentialHistogram, errors: int = 0) -> HourRow:
    return HourRow(at, device, "pi", "kws", release, "v", latency.total + errors, errors, latency)


def window(at: float, latency: dict[str, ExponentialHistogram], device: str = "a") -> WindowRow:
    return WindowRow(at, 60, device, "pi", ModelWindow("kws", 7, calls=1, latency=latency))


def test_quantiles_come_by_group_in_order() -> None:
    rows = [hour(1, "b", 8, histogram_of([0.2] * 9)), hour(2, "a", 7, histogram_of([0.1] * 9))]
    question = Question(ALL, dimensions(["hour", "release"]))
    found = asyncio.run(quantiles(store_of(rows), question, [0.5]))
    assert [one.key for one in found] == [
        {"release": 7, "hour": "1970-01-01T02:00Z"},
        {"release": 8, "hour": "1970-01-01T01:00Z"},
    ]
    assert found[0].quantiles[0.5].value == pytest.approx(0.1, rel=0.02)
    assert found[0].mean == pytest.approx(0.1)


def test_groups_merge_hours_exactly() -> None:
    values = np.random.default_rng(3).exponential(0.02, 5000).tolist()
    rows = [hour(n % 9, f"d{n % 7}", 7, histogram_of(values[n::100])) for n in range(100)]
    (found,) = asyncio.run(quantiles(store_of(rows), Question(ALL), [0.99]))
    assert found.count == 5000
    assert found.quantiles[0.99] == quantile_interval(histogram_of(values), 0.99)


def test_calls_a_second_are_over_the_hours_that_were_read() -> None:
    """A question about the last five minutes of a large fleet reads the hour that they are in."""
    rows = [hour(9, "a", 7, histogram_of([0.1] * 1800))]
    asked = Selection(9 * 3600 + 1500, 9 * 3600 + 1800)
    (found,) = asyncio.run(rates(store_of(rows), Question(asked)))
    assert found.per_s == 0.5
    few = Selection(asked.since, asked.until, frozenset(["a"]))
    second = window(asked.until - 10, {"total": histogram_of([0.1])})
    (found,) = asyncio.run(rates(store_of([], [second]), Question(few)))
    assert found.per_s == 1 / 300


@given(st.integers(50, 2000), st.sampled_from([0.5, 0.9, 0.99]), st.randoms(use_true_random=False))
def test_the_true_quantile_lies_about_its_interval(count: int, share: float, chance: random.Random) -> None:
    values = [chance.expovariate(1.0) for _ in range(count)]
    found = quantile_interval(histogram_of(values), share)
    assert found.low <= found.value <= found.high
    assert min(values) <= found.low
    assert found.high <= max(values)


def test_intervals_hold_the_truth_in_about_95_of_100_samples() -> None:
    chance, held = np.random.default_rng(7), 0
    for _ in range(400):
        found = quantile_interval(histogram_of(chance.random(200).tolist()), 0.9)
        held += found.low <= 0.9 <= found.high
    assert held >= 0.93 * 400


def test_a_short_time_of_few_devices_is_read_window_by_window() -> None:
    one = Selection(0, 3600, devices=frozenset({"a"}))
    rows = [window(60, {"total": histogram_of([0.1])}), window(7200, {"total": histogram_of([9.0])})]
    (found,) = asyncio.run(quantiles(store_of(by_window=rows), Question(one), [1.0]))
    assert (found.count, found.max) == (1, 0.1)


def test_a_stage_is_a_metric_of_its_own() -> None:
    rows = [window(60, {"total": histogram_of([0.5]), "run": histogram_of([0.1])})]
    (found,) = asyncio.run(quantiles(store_of(by_window=rows), Question(ALL, metric="run"), [0.5]))
    assert found.max == 0.1


def test_a_rate_says_how_sure_it_is() -> None:
    rows = [hour(1, "a", 7, histogram_of([0.1] * 90), errors=10), hour(1, "b", 7, histogram_of([0.1] * 9))]
    found = asyncio.run(rates(store_of(rows), Question(ALL, dimensions(["device"]))))
    assert [(one.key["device"], one.calls, one.errors) for one in found] == [("a", 100, 10), ("b", 9, 0)]
    assert found[0].rate.low == pytest.approx(0.0552, abs=1e-4)
    assert found[0].rate.high == pytest.approx(0.1744, abs=1e-4)
    assert found[1].rate.high > 0.25


def test_nothing_known_of_no_calls() -> None:
    assert share_interval(0, 0).high == 1.0


def test_wrong_questions_are_refused_with_what_there_is() -> None:
    with pytest.raises(UsageError, match=r"group by 'site'.*device, model"):
        dimensions(["site"])
    with pytest.raises(UsageError, match="from 0 to 1"):
        asyncio.run(quantiles(store_of(), Question(ALL), [95]))
