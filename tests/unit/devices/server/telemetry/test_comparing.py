"""One release against another: what stands still is held fixed, and chance is told from change."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from edgeml_devices.server.telemetry.comparing import Comparison, Pairing, compare
from edgeml_devices.server.telemetry.store import HourRow, Selection

from edgeml.telemetry.exponential import ROLLUP_SCALE, histogram_of, merge
from tests.unit.devices.server.telemetry.memory_store import store_of

ALL = Selection(0, 1e9)


def hour(
    device: str,
    release: int,
    latency_s: float,
    *,
    calls: int = 500,
    errors: int = 0,
    at: int = 100,
    target: str = "pi",
) -> HourRow:
    chance = np.random.default_rng(list(f"{device} {release} {at}".encode()))
    values = latency_s * chance.lognormal(0, 0.3, calls - errors)
    histogram = merge([histogram_of(values.tolist())], ROLLUP_SCALE)
    return HourRow(at, device, target, "kws", release, "v", calls, errors, histogram)


def asked(rows: list[HourRow], pairing: Pairing = "device-hour") -> Comparison:
    return asyncio.run(compare(store_of(rows), ALL, model="kws", release=8, against=7, pairing=pairing))


def test_a_slower_release_is_told_with_an_interval_around_the_truth() -> None:
    rows = [hour(f"d{n}", 7, 0.010 * (1 + n % 3)) for n in range(30)]
    rows += [hour(f"d{n}", 8, 0.012 * (1 + n % 3)) for n in range(30)]
    found = asked(rows).ratios[0.5]
    assert found is not None
    assert found.low > 1.1
    assert found.low < 1.2 < found.high < 1.3


def test_no_change_keeps_one_inside_the_interval() -> None:
    rows = [hour(f"d{n}", release, 0.010) for n in range(30) for release in (7, 8)]
    found = asked(rows).ratios[0.95]
    assert found is not None
    assert found.low < 1 < found.high


def test_slow_machines_that_ran_one_release_only_do_not_count() -> None:
    rows = [hour(f"d{n}", release, 0.010) for n in range(10) for release in (7, 8)]
    slow = [hour(f"slow{n}", 8, 0.100) for n in range(10)]
    assert asked(rows + slow) == asked(rows)


def test_a_machine_that_ran_one_release_longer_weighs_no_more_for_it() -> None:
    fast = [hour(f"d{n}", 7, 0.010, calls=900) for n in range(10)]
    fast += [hour(f"d{n}", 8, 0.010, calls=100) for n in range(10)]
    slow = [hour(f"s{n}", 7, 0.100, calls=100) for n in range(10)]
    slow += [hour(f"s{n}", 8, 0.100, calls=900) for n in range(10)]
    found = asked(fast + slow).ratios[0.5]
    assert found is not None
    assert 0.5 < found.low < 1.2
    assert 0.8 < found.high < 2


def test_errors_are_compared_by_their_rates() -> None:
    rows = [hour(f"d{n}", 7, 0.010, errors=5) for n in range(20)]
    rows += [hour(f"d{n}", 8, 0.010, errors=25 + n % 3) for n in range(20)]
    found = asked(rows)
    assert found.error_rate_against == pytest.approx(0.01)
    assert found.error_difference is not None
    assert found.error_difference.low > 0.03
    assert found.error_difference.high < 0.06


def test_a_few_devices_give_a_value_and_no_interval() -> None:
    found = asked([hour("d", 7, 0.010), hour("d", 8, 0.020)])
    ratio = found.ratios[0.5]
    assert ratio is not None
    assert (ratio.low, ratio.high) == (float("-inf"), float("inf"))
    assert "devices: 1," in found.note


def test_releases_that_never_met_say_which_pairing_would_do() -> None:
    rows = [hour("d", 7, 0.010, at=100), hour("d", 8, 0.020, at=101)]
    found = asked(rows)
    assert found.ratios == {0.5: None, 0.95: None}
    assert "pairing device" in found.note
    assert asked(rows, "device").cells == 1


def test_by_target_and_hour_other_devices_of_the_kind_serve_as_the_control() -> None:
    rows = [hour(f"old{n}", 7, 0.010) for n in range(10)] + [hour(f"new{n}", 8, 0.020) for n in range(10)]
    rows += [hour("other", 8, 1.0, target="x86")]
    found = asked(rows, "target-hour")
    ratio = found.ratios[0.5]
    assert ratio is not None
    assert ratio.low < 2 < ratio.high < 2.3
    assert found.devices == 20


def test_calls_that_all_failed_leave_the_latency_open() -> None:
    rows = [hour(f"d{n}", 7, 0.010) for n in range(6)] + [
        hour(f"d{n}", 8, 0.0, calls=9, errors=9) for n in range(6)
    ]
    found = asked(rows)
    assert found.ratios[0.5] is None
    assert found.error_rate == 1.0
