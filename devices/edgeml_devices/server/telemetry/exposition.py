"""``/metrics``: what Prometheus scrapes. Counters that only grow, aggregated over devices.

Series are by model, release, variant and kind of machine; of these the newest stand here, and how many were
left out is a metric itself. Buckets are the powers of two that exponential buckets nest in: no count is
interpolated.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from edgeml.telemetry.exponential import ExponentialHistogram, merge
from edgeml_devices.server.telemetry.store import TotalRow

MOST_SERIES: Final = 300
_FIRST: Final = -15
_LAST: Final = 4
"""Bounds of buckets are 2**-14 (61 us) to 2**5 (32 s)."""
_LABELS: Final = ("model", "release", "variant", "target")


@dataclass(frozen=True, slots=True)
class Fleet:
    """What is scraped."""

    totals: Sequence[TotalRow]
    devices: Mapping[str, int]
    """How many of them are ``online`` and ``silent``."""
    temperatures: Mapping[str, float]
    """Highest of the last windows in degrees Celsius, by kind of machine."""
    lost: Mapping[str, int]
    """Windows ``evicted``, ``damaged`` and ``missing``, inferences ``overwritten``: of this day (UTC)."""
    alerts: Mapping[tuple[str, str], int]
    """How many alerts there are by rule and state."""


def exposition(fleet: Fleet) -> bytes:
    """Give the text of Prometheus' format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Scrape(fleet))
    return generate_latest(registry)


class _Scrape(Collector):
    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    def collect(self) -> Iterator[Metric]:
        fleet = self._fleet
        newest = sorted(fleet.totals, key=lambda row: row.last_at, reverse=True)
        yield from _inferences(newest[:MOST_SERIES])
        yield GaugeMetricFamily(
            "edgeml_series_left_out",
            f"Series of models that do not stand here: the newest {MOST_SERIES} do",
            max(0, len(newest) - MOST_SERIES),
        )
        yield _gauge("edgeml_devices", "Devices that are enrolled", ("state",), fleet.devices)
        yield _gauge(
            "edgeml_temperature_max_celsius",
            "Highest temperature of the last minutes",
            ("target",),
            fleet.temperatures,
        )
        yield _gauge(
            "edgeml_telemetry_lost",
            "What this day's telemetry lacks: windows, or inferences where overwritten",
            ("how",),
            fleet.lost,
        )
        alerts = GaugeMetricFamily("edgeml_alerts", "Alerts by rule and state", labels=("alertname", "state"))
        for labels, count in sorted(fleet.alerts.items()):
            alerts.add_metric(labels, count)
        yield alerts


def _inferences(rows: Sequence[TotalRow]) -> Iterator[Metric]:
    calls = CounterMetricFamily("edgeml_inferences", "Inferences, failed ones included", labels=_LABELS)
    errors = CounterMetricFamily("edgeml_inference_errors", "Inferences that failed", labels=_LABELS)
    seconds = HistogramMetricFamily(
        "edgeml_inference_duration_seconds", "Latency of inferences, failed ones included", labels=_LABELS
    )
    for row in rows:
        labels = (row.model, str(row.release), row.variant, row.target)
        calls.add_metric(labels, row.calls)
        errors.add_metric(labels, row.errors)
        seconds.add_metric(labels, _cumulative(row.latency), row.latency.sum_nano / 1e9)
    yield calls
    yield errors
    yield seconds


def _cumulative(latency: ExponentialHistogram) -> list[tuple[str, float]]:
    """Give upper bounds in seconds, and how many values lie at or below each."""
    octaves = merge([latency], 0)
    found, seen = [], octaves.zero
    by_place = dict(enumerate(octaves.counts, octaves.offset))
    seen += sum(count for place, count in by_place.items() if place < _FIRST)
    for place in range(_FIRST, _LAST + 1):
        seen += by_place.get(place, 0)
        found.append((repr(float(2.0 ** (place + 1))), float(seen)))
    return [*found, ("+Inf", float(octaves.total))]


def _gauge(name: str, text: str, labels: Sequence[str], values: Mapping[str, float]) -> Metric:
    gauge = GaugeMetricFamily(name, text, labels=labels)
    for label, value in sorted(values.items()):
        gauge.add_metric((label,), value)
    return gauge
