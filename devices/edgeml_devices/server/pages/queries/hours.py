"""Hourly sums as columns of a time axis: latency and errors over time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from edgeml.telemetry.exponential import EMPTY, ExponentialHistogram, merge
from edgeml_devices.server.pages.charts import Chart, Point, Series, Span, over_time
from edgeml_devices.server.telemetry.questions import Interval, quantile_interval, share_interval
from edgeml_devices.server.telemetry.store import HourRow

SHARES: Final[Mapping[str, float]] = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
_HOUR_S: Final = 3600
_MS: Final = 1000.0


@dataclass(frozen=True, slots=True)
class Column:
    """What happened in one step of the time axis."""

    at: float
    """When it begins."""
    calls: int
    errors: int
    latency: ExponentialHistogram

    @property
    def rate(self) -> Interval:
        """The share of calls that failed."""
        return share_interval(self.errors, self.calls)

    @property
    def quantiles(self) -> Mapping[str, Interval]:
        """Seconds; empty: no call succeeded."""
        if not self.latency.total:
            return {}
        return {name: quantile_interval(self.latency, share) for name, share in SHARES.items()}


@dataclass(slots=True)
class _Sum:
    calls: int = 0
    errors: int = 0
    latency: list[ExponentialHistogram] = field(default_factory=list)


def hour_span(now: float, hours: int, step_hours: int) -> Span:
    """Give whole steps up to the one that ``now`` is in."""
    step = step_hours * _HOUR_S
    end = (now // step + 1) * step
    return Span(end - hours * _HOUR_S, end, step)


def columns(rows: Iterable[HourRow], span: Span) -> list[Column]:
    """Add rows up by step, by rising time."""
    found: dict[float, _Sum] = {}
    for row in rows:
        at = row.hour * _HOUR_S
        if span.begin <= at < span.end:
            sums = found.setdefault(span.begin + (at - span.begin) // span.step_s * span.step_s, _Sum())
            sums.calls += row.calls
            sums.errors += row.errors
            sums.latency.append(row.latency)
    return [
        Column(at, one.calls, one.errors, merge(one.latency) if one.latency else EMPTY)
        for at, one in sorted(found.items())
    ]


def latency_chart(found: Sequence[Column], span: Span) -> tuple[Chart, ...]:
    """Draw quantiles over time in milliseconds, with their intervals."""
    series = [
        Series(
            name,
            [
                Point(one.at, *(_MS * value for value in _ends(quantiles[name])))
                for one in found
                if (quantiles := one.quantiles)
            ],
        )
        for name in SHARES
    ]
    return over_time(series, span, may_be_log=True)


def error_chart(found: Sequence[Column], span: Span) -> tuple[Chart, ...]:
    """Draw the error rate over time in per cent, with its interval."""
    points = [Point(one.at, *(100 * value for value in _ends(one.rate))) for one in found if one.calls]
    return over_time([Series("error rate", points)], span, from_zero=True)


def _ends(one: Interval) -> tuple[float, float, float]:
    return one.value, one.low, one.high
