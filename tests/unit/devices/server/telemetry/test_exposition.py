"""What Prometheus scrapes: read back with the parser of its own client."""

from __future__ import annotations

import numpy as np
from edgeml_devices.server.telemetry.exposition import MOST_SERIES, Fleet, exposition
from edgeml_devices.server.telemetry.store import TotalRow
from prometheus_client.parser import text_string_to_metric_families

from edgeml.telemetry.exponential import ROLLUP_SCALE, histogram_of, merge


def total(release: int, values: list[float], model: str = "kws", errors: int = 0) -> TotalRow:
    latency = merge([histogram_of(values)], ROLLUP_SCALE)
    return TotalRow("pi", model, release, "v", latency.total + errors, errors, latency, float(release))


def scraped(*rows: TotalRow) -> dict[tuple[str, str, str], float]:
    text = exposition(Fleet(rows, {"online": 3}, {"pi": 61.5}, {"evicted": 2}, {("Slow", "firing"): 1}))
    return {
        (one.name, one.labels.get("release", ""), one.labels.get("le", "")): one.value
        for family in text_string_to_metric_families(text.decode())
        for one in family.samples
    }


def test_buckets_count_what_lies_at_or_below_their_bound() -> None:
    values = np.random.default_rng(1).exponential(0.05, 3000).tolist()
    found = scraped(total(8, values, errors=2))
    for bound in (0.0078125, 0.0625, 0.25):
        at_or_below = sum(value <= bound for value in values)
        assert found["edgeml_inference_duration_seconds_bucket", "8", repr(bound)] == at_or_below
    assert found["edgeml_inference_duration_seconds_bucket", "8", "+Inf"] == 3000
    assert abs(found["edgeml_inference_duration_seconds_sum", "8", ""] - sum(values)) < 1e-5
    assert found["edgeml_inferences_total", "8", ""] == 3002
    assert found["edgeml_inference_errors_total", "8", ""] == 2


def test_what_is_too_quick_or_too_slow_for_a_bucket_is_counted_all_the_same() -> None:
    found = scraped(total(1, [0.0, 1e-6, 100.0]))
    assert found["edgeml_inference_duration_seconds_bucket", "1", "6.103515625e-05"] == 2
    assert found["edgeml_inference_duration_seconds_bucket", "1", "32.0"] == 2
    assert found["edgeml_inference_duration_seconds_count", "1", ""] == 3


def test_only_the_newest_series_stand_there_and_it_says_how_many_do_not() -> None:
    found = scraped(*(total(n, [0.1]) for n in range(MOST_SERIES + 5)))
    assert found["edgeml_series_left_out", "", ""] == 5
    assert ("edgeml_inferences_total", "4", "") not in found
    assert ("edgeml_inferences_total", "5", "") in found


def test_names_that_need_escaping_are_escaped() -> None:
    assert scraped(total(1, [0.1], model='a"b\\c\n'))["edgeml_inferences_total", "1", ""] == 1


def test_gauges_tell_of_machines_and_alerts() -> None:
    found = scraped()
    assert found["edgeml_devices", "", ""] == 3
    assert found["edgeml_temperature_max_celsius", "", ""] == 61.5
    assert found["edgeml_telemetry_lost", "", ""] == 2
    assert found["edgeml_alerts", "", ""] == 1
