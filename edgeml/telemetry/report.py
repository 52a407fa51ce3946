"""A report: what one device's models did in one window, and what was lost on the way here.

One definition for the device, which has the standard library only, and for the server. In MessagePack or in
JSON it is a map of the fields' names; a field that holds its default may be left out, one that is not known
is left aside.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from edgeml.telemetry.exponential import ExponentialHistogram

SCHEMA: Final = 1
CONTENT_JSON: Final = "application/vnd.edgeml.reports+json"
CONTENT_MSGPACK: Final = "application/vnd.edgeml.reports+msgpack"
MOST_REPORTS: Final = 64
"""In one batch."""
MOST_BYTES: Final = 256 * 1024
"""Of one batch, as it is before compression."""
OTHER: Final = "other"
"""Name under which classes, errors and features beyond the first few are counted together."""
MOST_MODELS: Final = 64
"""In one report; releases, variants and runtimes of one model count each."""
MOST_CLASSES: Final = 32
MOST_ERRORS: Final = 16
MOST_FEATURES: Final = 32
MOST_SAMPLES: Final = 20


@dataclass(frozen=True, slots=True)
class Summary:
    """A quantity of the machine over a window, in the unit its name says."""

    min: float
    mean: float
    max: float
    count: int = 1
    """Readings; weights of the mean when windows merge."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One inference that was kept as an example."""

    at: float
    """Wall clock of the device."""
    why: Literal["random", "error", "unsure"]
    latency_s: float | None = None
    label: str | None = None
    confidence: float | None = None
    error: str | None = None
    features: tuple[float, ...] | None = None
    raw: bytes | None = None
    """The input, only where the device's owner allows it (base64 in JSON)."""


@dataclass(frozen=True, slots=True)
class ModelWindow:
    """What one release of one model did, all processes of the device together."""

    model: str
    release: int
    variant: str = ""
    runtime: str = ""
    calls: int = 0
    """Inferences that were begun and ended, failed ones included."""
    errors: Mapping[str, int] = field(default_factory=dict)
    """By type (``InferenceError``)."""
    latency: Mapping[str, ExponentialHistogram] = field(default_factory=dict)
    """Seconds by stage; ``total`` is a whole call, ``preprocess``, ``run`` and ``postprocess`` its parts."""
    classes: Mapping[str, int] = field(default_factory=dict)
    """Predicted label or index, as text."""
    confidence: ExponentialHistogram | None = None
    features: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Counts between the edges of the bundle's reference: one more than there are edges."""
    rff_sum: tuple[float, ...] = ()
    """Sums of the random Fourier features of the bundle's reference."""
    rff_count: int = 0
    reference: str = ""
    """Which reference the counts above are for: its ``digest``."""
    samples: tuple[Sample, ...] = ()
    processes: int = 1
    killed: int = 0
    """Processes that ended without a word, and whose last inferences are in here all the same."""


@dataclass(frozen=True, slots=True)
class Lost:
    """What this device knows it did not keep, since the report before."""

    overwritten: int = 0
    """Inferences that a ring lost, as nobody read it in time."""
    merged: int = 0
    """Windows that went into a longer one: nothing of their counts is lost, their times are coarser."""
    evicted: int = 0
    """Windows that were given up, with all that was in them."""
    damaged: int = 0
    """Windows that could not be read back from the spool."""


@dataclass(frozen=True, slots=True)
class Report:
    """One window of one device, or several that were merged."""

    seq: int
    """Of the window, from 0 in each epoch; of the last one where several were merged."""
    link: str
    """Random, 16 hex digits: tells this window from another of the same number."""
    boot_id: str
    start_s: float
    """By the boot's monotonic clock."""
    end_s: float
    at: float
    """The window's end by the device's wall clock."""
    prev: str = ""
    """``link`` of the window before ``first``; empty for the first of an epoch."""
    first: int | None = None
    """Number of the first window merged in here; ``None``: it is ``seq`` alone."""
    windows: int = 1
    """How many windows of a minute were merged in here: fewer than ``seq - first + 1`` if some were lost."""
    clock: Literal["synced", "unsynced", "unknown"] = "unknown"
    models: tuple[ModelWindow, ...] = ()
    system: Mapping[str, Summary] = field(default_factory=dict)
    """``cpu_utilization``, ``memory_bytes``, ``temperature_celsius``, ``power_watts`` …"""
    energy_joules: float | None = None
    """Of the whole device in the window, where the machine measures it."""
    lost: Lost = Lost()
    schema: int = SCHEMA

    @property
    def begins(self) -> int:
        """The number of the first window in here."""
        return self.seq if self.first is None else self.first


@dataclass(frozen=True, slots=True)
class Batch:
    """``POST /v1/reports``: reports of one stream, in their order."""

    epoch: str
    """32 random hex digits: the stream. A new one is begun when the server finds a fork (409)."""
    boot_id: str
    """Of the device now."""
    now_s: float
    """The boot's monotonic clock as this is sent; with ``boot_id`` it dates windows of a wrong clock."""
    at: float
    """The device's wall clock as this is sent."""
    reports: tuple[Report, ...] = ()
    schema: int = SCHEMA


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """The answer, given after the commit: what the device may forget."""

    acked_through: int
    """Every window up to here is stored, or stands in ``gaps``."""
    gaps: tuple[tuple[int, int], ...] = ()
    """First and last numbers that never came, the newest at most 64."""
    server_time: float = 0.0
    schema: int = SCHEMA
