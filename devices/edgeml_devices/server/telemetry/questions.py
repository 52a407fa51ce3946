"""``quantile`` and ``rate``: how fast and how sound, by whatever dimension, with what is not known stated.

Hours are read where they suffice; a few devices over a short time are read window by window.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, get_args

from edgeml.errors import UsageError
from edgeml.telemetry.exponential import EMPTY, ExponentialHistogram, merge
from edgeml.telemetry.exponential import quantiles as values_at
from edgeml_devices.server.telemetry.store import HourRow, Selection, TelemetryStore, WindowRow

Dimension = Literal["device", "model", "release", "variant", "target", "hour", "day"]
Key = tuple[str | int, ...]
DIMENSIONS: Final[tuple[Dimension, ...]] = get_args(Dimension)
TOTAL: Final = "total"
CONFIDENCE: Final = "confidence"
Z_95: Final = 1.959964
"""Of the normal distribution: 95 % lie within so many standard deviations."""
_HOUR_S: Final = 3600
_DAY_S: Final = 24 * _HOUR_S
_FEW_DEVICES: Final = 10
_SHORT_S: Final = 6 * _HOUR_S
_PIECE: Final = 64
"""Histograms held until they are merged."""


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked."""

    selection: Selection
    by: tuple[Dimension, ...] = ()
    metric: str = TOTAL
    """A stage of a call, or ``confidence``."""

    @property
    def is_by_window(self) -> bool:
        """Say whether single windows must be read."""
        selection = self.selection
        few = selection.devices is not None and len(selection.devices) <= _FEW_DEVICES
        is_short = few and selection.until - selection.since <= _SHORT_S
        return self.metric != TOTAL or (is_short and not {"hour", "day"} & set(self.by))


@dataclass(frozen=True, slots=True)
class Interval:
    """A value, and where the true one lies in 95 of 100 cases if the inferences were independent."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class QuantileAnswer:
    """Quantiles of one group."""

    key: Mapping[str, str | int]
    count: int
    """Inferences that were counted."""
    quantiles: Mapping[float, Interval]
    """Seconds by the share below, for ``confidence`` without a unit."""
    mean: float
    max: float


@dataclass(frozen=True, slots=True)
class RateAnswer:
    """Errors of one group."""

    key: Mapping[str, str | int]
    calls: int
    errors: int
    rate: Interval
    per_s: float
    """Calls a second, over the time asked about: whole hours, up to now, where those were read."""


@dataclass(slots=True)
class _Group:
    calls: int = 0
    errors: int = 0
    histogram: ExponentialHistogram = EMPTY
    waiting: list[ExponentialHistogram] = field(default_factory=list)

    def add(self, calls: int, errors: int, histogram: ExponentialHistogram | None) -> None:
        self.calls += calls
        self.errors += errors
        if histogram is not None:
            self.waiting.append(histogram)
            if len(self.waiting) >= _PIECE:
                self.settle()

    def settle(self) -> ExponentialHistogram:
        if self.waiting:
            self.histogram = merge((self.histogram, *self.waiting) if self.histogram.total else self.waiting)
            self.waiting = []
        return self.histogram


def listed(text: str) -> list[str]:
    """Give the names in a text, which commas separate."""
    return [one.strip() for one in text.split(",") if one.strip()]


def dimensions(names: Iterable[str]) -> tuple[Dimension, ...]:
    """Read what to group by.

    Raises:
        UsageError: a name that is no dimension.
    """
    wanted = list(names)
    for name in wanted:
        if name not in DIMENSIONS:
            raise UsageError(f"cannot group by {name!r:.40}; there are: {', '.join(DIMENSIONS)}")
    return tuple(one for one in DIMENSIONS if one in wanted)


async def quantiles(
    store: TelemetryStore, question: Question, shares: Sequence[float]
) -> list[QuantileAnswer]:
    """Give quantiles by group, groups in order of their keys; a group without a value is left out.

    Raises:
        UsageError: a share outside 0 to 1.
    """
    for share in shares:
        if not 0 <= share <= 1:
            raise UsageError(f"quantile {share}: a share is from 0 to 1, like 0.95")
    answers = []
    for key, group in (await _groups(store, question)).items():
        histogram = group.settle()
        if histogram.total:
            found = {share: quantile_interval(histogram, share) for share in shares}
            mean = histogram.sum_nano / histogram.total / 1e9
            answers.append(
                QuantileAnswer(named(question.by, key), histogram.total, found, mean, histogram.max)
            )
    return answers


async def rates(store: TelemetryStore, question: Question) -> list[RateAnswer]:
    """Give errors and calls by group, groups in order of their keys."""
    seconds = _seconds(question, time.time())
    return [
        RateAnswer(
            named(question.by, key),
            group.calls,
            group.errors,
            share_interval(group.errors, group.calls),
            group.calls / seconds,
        )
        for key, group in (await _groups(store, question)).items()
        if group.calls
    ]


def quantile_interval(histogram: ExponentialHistogram, share: float) -> Interval:
    """Give a quantile of a histogram that is not empty, between the order statistics around it.

    The number of values below a quantile is binomial; bounds are the outer bounds of the buckets in which
    its ranks at 95 % lie (Conover, "Practical Nonparametric Statistics", 3.2).
    """
    spread = Z_95 * math.sqrt(share * (1 - share) / histogram.total)
    low, value, high = values_at(histogram, (max(share - spread, 0.0), share, min(share + spread, 1.0)))
    half = 2 ** (0.5 / (1 << histogram.scale))
    return Interval(value, max(low / half, histogram.min), min(high * half, histogram.max))


def share_interval(part: int, whole: int) -> Interval:
    """Give a share with Wilson's score interval (J. Am. Stat. Assoc. 22, 1927)."""
    if whole == 0:
        return Interval(0.0, 0.0, 1.0)
    share, z2 = part / whole, Z_95**2
    middle = (share + z2 / (2 * whole)) / (1 + z2 / whole)
    half = Z_95 * math.sqrt(share * (1 - share) / whole + z2 / (4 * whole**2)) / (1 + z2 / whole)
    return Interval(share, max(0.0, middle - half), min(1.0, middle + half))


def _seconds(question: Question, now: float) -> float:
    """Give the time that the calls of an answer were made in."""
    since, until = question.selection.since, question.selection.until
    if not question.is_by_window:
        since = since // _HOUR_S * _HOUR_S
        until = min(-(-until // _HOUR_S) * _HOUR_S, max(until, now))
    return max(until - since, 1.0)


async def _groups(store: TelemetryStore, question: Question) -> dict[Key, _Group]:
    found: dict[Key, _Group] = {}
    if question.is_by_window:
        async for piece in store.windows(question.selection):
            for row in piece:
                key, window = _window_key(question.by, row), row.window
                of = (
                    window.confidence
                    if question.metric == CONFIDENCE
                    else window.latency.get(question.metric)
                )
                found.setdefault(key, _Group()).add(window.calls, sum(window.errors.values()), of)
    else:
        by_device = "device" in question.by or question.selection.devices is not None
        for hour in await store.hours(question.selection, by_device=by_device):
            key = _hour_key(question.by, hour)
            found.setdefault(key, _Group()).add(hour.calls, hour.errors, hour.latency)
    return dict(sorted(found.items()))


def _hour_key(by: Sequence[Dimension], row: HourRow) -> Key:
    values: dict[Dimension, str | int] = {
        "device": row.device_id,
        "model": row.model,
        "release": row.release,
        "variant": row.variant,
        "target": row.target,
        **moments(row.hour * _HOUR_S),
    }
    return tuple(values[one] for one in by)


def moments(at: float) -> dict[Dimension, str | int]:
    """Give when the hour and the day of a moment begin, Unix seconds."""
    return {"hour": int(at) // _HOUR_S * _HOUR_S, "day": int(at) // _DAY_S * _DAY_S}


def _window_key(by: Sequence[Dimension], row: WindowRow) -> Key:
    window = row.window
    values: dict[Dimension, str | int] = {
        "device": row.device_id,
        "model": window.model,
        "release": window.release,
        "variant": window.variant,
        "target": row.target,
        **moments(row.at),
    }
    return tuple(values[one] for one in by)


def named(by: Sequence[Dimension], key: Key) -> dict[str, str | int]:
    """Give a group's key by the names of its parts, moments as text."""
    named: dict[str, str | int] = dict(zip(by, key, strict=True))
    for one in ("hour", "day"):
        if one in named:
            named[one] = time.strftime("%Y-%m-%dT%H:%MZ", time.gmtime(int(named[one])))
    return named
