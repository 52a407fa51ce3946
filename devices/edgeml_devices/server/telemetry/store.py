"""What every store of telemetry can do. SQLite and PostgreSQL give the same answers, bit by bit."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from edgeml.telemetry.exponential import ExponentialHistogram
from edgeml.telemetry.report import ModelWindow, Report, Sample, Summary


class Verdict(StrEnum):
    """What became of a report."""

    STORED = "stored"
    DUPLICATE = "duplicate"
    """It was stored before."""
    FORK = "fork"
    """Another device, or an older copy of this one, sent this number already."""


@dataclass(frozen=True, slots=True)
class Incoming:
    """A report on its way into the store."""

    device_id: str
    epoch: str
    report: Report
    at: float
    """The window's end by the server's clock, repaired where the device's was wrong."""
    received_at: float
    target: str
    """Kind of machine: ``facts.target.name`` of the device, or ``unknown``."""


@dataclass(frozen=True, slots=True)
class Stored:
    """What became of an incoming report, and where its stream stands after it."""

    verdict: Verdict
    acked_through: int
    gaps: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Selection:
    """Which rows a question is about. ``None``: all."""

    since: float
    """Windows that end after this moment …"""
    until: float
    """… and not after this one."""
    devices: frozenset[str] | None = None
    model: str | None = None
    release: int | None = None
    variant: str | None = None
    target: str | None = None


@dataclass(frozen=True, slots=True)
class WindowRow:
    """One model in one window of one device."""

    at: float
    seconds: float
    """How long the window was."""
    device_id: str
    target: str
    window: ModelWindow


@dataclass(frozen=True, slots=True)
class HourRow:
    """One release of one model on one device in one hour: of windows that end in it, or at its end."""

    hour: int
    """Unix time of its beginning, divided by 3600."""
    device_id: str
    """Empty where devices were added up."""
    target: str
    model: str
    release: int
    variant: str
    calls: int
    errors: int
    latency: ExponentialHistogram
    """Stage ``total``, at ``ROLLUP_SCALE``."""


@dataclass(frozen=True, slots=True)
class SystemRow:
    """The machine itself in one window."""

    at: float
    seconds: float
    device_id: str
    target: str
    system: dict[str, Summary]
    energy_joules: float | None
    calls: int
    """Of all models in the window."""


@dataclass(frozen=True, slots=True)
class SampleRow:
    """An inference that was kept."""

    device_id: str
    model: str
    release: int
    variant: str
    sample: Sample


@dataclass(frozen=True, slots=True)
class Coverage:
    """What came of one device on one day (UTC)."""

    device_id: str
    day: str
    """``2026-01-31``"""
    received: int
    """Windows of a minute that are stored, merged ones counted as what they were."""
    merged: int
    evicted: int
    damaged: int
    overwritten: int
    """Inferences."""
    missing: int
    """Windows whose numbers were passed over and never came, other than those evicted or damaged."""
    seconds: float
    """Time that stored windows cover, after the moment since which was asked."""
    asked_s: float
    """How much of the day was asked about."""
    boots: int
    epochs: int
    gaps: tuple[tuple[int, int], ...] = ()

    @property
    def absent(self) -> int:
        """Windows that are known to be lost."""
        return self.missing + self.evicted + self.damaged


@dataclass(frozen=True, slots=True)
class TotalRow:
    """One release of one model on one kind of machine, since the store was made: it only grows."""

    target: str
    model: str
    release: int
    variant: str
    calls: int
    errors: int
    latency: ExponentialHistogram
    """Stage ``total``, at ``ROLLUP_SCALE``."""
    last_at: float
    """End of its newest window."""


@dataclass(frozen=True, slots=True)
class Point:
    """What a foreign agent measured: stored at least once, perhaps twice."""

    at: float
    device_id: str
    """Whose token sent it; empty: not a device's."""
    name: str
    unit: str
    kind: str
    """``gauge``, ``sum``, ``histogram``, ``exponential_histogram``"""
    temporality: str
    """``delta``, ``cumulative``; empty for a gauge."""
    attributes: str
    """A JSON object, with those of the resource under ``resource.``."""
    value: float
    """Of a histogram: the sum."""
    buckets: str
    """A histogram's count, least and greatest value and buckets, as JSON."""


class TelemetryStore(Protocol):
    """Where telemetry is kept. Safe for any number of tasks of one event loop."""

    async def append(self, incoming: Sequence[Incoming]) -> list[Stored]:
        """Store reports in one durable commit, each once, and say in order what became of each.

        Reports of one stream that stand side by side are one request: if one of them forks, none is stored.
        """
        ...

    def windows(self, selection: Selection) -> AsyncIterator[Sequence[WindowRow]]:
        """Give rows in pieces, each piece in order of (at, device)."""
        ...

    async def hours(self, selection: Selection, *, by_device: bool) -> Sequence[HourRow]:
        """Give hourly sums of the hours that a selection touches, late reports included.

        Args:
            selection: ``since`` and ``until`` are widened to whole hours.
            by_device: else devices are added up and ``device_id`` is empty: where the selection names no
                devices, this reads sums that are kept, a few hundred rows for a week of any fleet.

        Rows are in order of (hour, device, model, release, variant, target).
        """
        ...

    async def totals(self) -> Sequence[TotalRow]:
        """Give sums over all time, each report once, and never pruned."""
        ...

    def system(self, selection: Selection) -> AsyncIterator[Sequence[SystemRow]]:
        """Give what the machines were like."""
        ...

    async def samples(self, selection: Selection, limit: int) -> Sequence[SampleRow]:
        """Give the newest samples."""
        ...

    async def coverage(self, selection: Selection) -> Sequence[Coverage]:
        """Give what came, by device and day; windows hold all models, so what names one is passed over."""
        ...

    async def append_points(self, points: Sequence[Point]) -> None:
        """Store points of foreign agents in one durable commit."""
        ...

    async def points(self, name: str, since: float, until: float, limit: int) -> Sequence[Point]:
        """Give the newest points of a name that were measured after ``since`` and not after ``until``."""
        ...

    async def prune(self, keep_from: float, keep_hours_from: float) -> None:
        """Forget windows and points before one moment, and hourly sums before another."""
        ...

    async def run(self) -> None:
        """Do what goes on beside (hourly sums, tidying), until cancelled. Answers are right without it."""
        ...

    async def close(self) -> None:
        """Close all files and connections."""
        ...
