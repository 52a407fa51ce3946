"""The types of :mod:`edgeml.telemetry.report` as a stranger may send them, checked while they are decoded.

Field by field the same (a test compares them), so that what takes the one takes the other; but counts and
sums may come as the bytes of :mod:`edgeml.telemetry.packed`, as which they are kept. In Python the same
checks would cost as much as all the rest.
"""

from __future__ import annotations

import math
from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

from edgeml.telemetry.exponential import ROLLUP_SCALE, SCALE
from edgeml.telemetry.report import (
    MOST_CLASSES,
    MOST_ERRORS,
    MOST_FEATURES,
    MOST_MODELS,
    MOST_REPORTS,
    MOST_SAMPLES,
    SCHEMA,
)

MODELS: Final = MOST_MODELS
"""In one report."""
BINS: Final = 1024
"""Of one feature."""
BUCKETS: Final = 4096
"""Of one histogram."""
MOST_COUNT: Final = 2**53
"""Every language has the integers below exactly."""
LARGEST: Final = 1e300
_RAW_BYTES: Final = 64 * 1024

Count = Annotated[int, Meta(ge=0, lt=MOST_COUNT)]
Counts = bytes | Annotated[tuple[Count, ...], Meta(max_length=BUCKETS)]
Bins = bytes | Annotated[tuple[Count, ...], Meta(max_length=BINS)]
Place = Annotated[int, Meta(ge=0, lt=2**40)]
"""What is added up over a day of the whole fleet: eight million of these fit into a database's integer."""
Sum = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Text = Annotated[str, Meta(max_length=128)]
Link = Annotated[str, Meta(pattern=r"^[0-9a-f]{16}\Z")]
Number = Annotated[float, Meta(ge=-LARGEST, le=LARGEST)]
"""No infinity, and nothing that is no number."""
Sums = bytes | Annotated[tuple[Number, ...], Meta(max_length=BINS)]


class ExponentialHistogram(Struct, frozen=True, gc=False):
    """See :class:`edgeml.telemetry.exponential.ExponentialHistogram`."""

    offset: Annotated[int, Meta(ge=-(2**40), le=2**40)] = 0
    counts: Counts = ()
    zero: Count = 0
    sum_nano: Sum = 0
    min: float = math.inf
    max: float = -math.inf
    # coarser ones would make the whole fleet's hours as coarse
    scale: Annotated[int, Meta(ge=ROLLUP_SCALE, le=20)] = SCALE


class Summary(Struct, frozen=True, gc=False):
    """See :class:`edgeml.telemetry.report.Summary`."""

    min: Number
    mean: Number
    max: Number
    count: Count = 1


class Sample(Struct, frozen=True, gc=False):
    """See :class:`edgeml.telemetry.report.Sample`."""

    at: Number
    why: Literal["random", "error", "unsure"]
    latency_s: Number | None = None
    label: Text | None = None
    confidence: Number | None = None
    error: Text | None = None
    features: Annotated[tuple[Number, ...], Meta(max_length=BINS)] | None = None
    raw: Annotated[bytes, Meta(max_length=_RAW_BYTES)] | None = None


class ModelWindow(Struct, frozen=True, gc=False):
    """See :class:`edgeml.telemetry.report.ModelWindow`."""

    model: Text
    release: Sum
    variant: Text = ""
    runtime: Text = ""
    calls: Count = 0
    # one more: ``other``
    errors: Annotated[dict[Text, Count], Meta(max_length=MOST_ERRORS + 1)] = {}
    latency: Annotated[dict[Text, ExponentialHistogram], Meta(max_length=16)] = {}
    classes: Annotated[dict[Text, Count], Meta(max_length=MOST_CLASSES + 1)] = {}
    confidence: ExponentialHistogram | None = None
    features: Annotated[dict[Text, Bins], Meta(max_length=MOST_FEATURES + 1)] = {}
    rff_sum: Sums = ()
    rff_count: Count = 0
    reference: Text = ""
    samples: Annotated[tuple[Sample, ...], Meta(max_length=MOST_SAMPLES)] = ()
    processes: Count = 1
    killed: Count = 0


class Lost(Struct, frozen=True, gc=False):
    """See :class:`edgeml.telemetry.report.Lost`."""

    overwritten: Place = 0
    merged: Place = 0
    evicted: Place = 0
    damaged: Place = 0


class Report(Struct, frozen=True, gc=False):
    """See :class:`edgeml.telemetry.report.Report`."""

    seq: Place
    link: Link
    boot_id: Text
    start_s: Number
    end_s: Number
    at: Number
    prev: Annotated[str, Meta(pattern=r"^([0-9a-f]{16})?\Z")] = ""
    first: Place | None = None
    windows: Annotated[int, Meta(ge=1, lt=2**40)] = 1
    clock: Literal["synced", "unsynced", "unknown"] = "unknown"
    models: Annotated[tuple[ModelWindow, ...], Meta(max_length=MODELS)] = ()
    system: Annotated[dict[Text, Summary], Meta(max_length=64)] = {}
    energy_joules: Number | None = None
    lost: Lost = Lost()
    schema: Literal[1] = SCHEMA

    @property
    def begins(self) -> int:
        return self.seq if self.first is None else self.first


class Batch(Struct, frozen=True, gc=False):
    """See :class:`edgeml.telemetry.report.Batch`."""

    epoch: Annotated[str, Meta(pattern=r"^[0-9a-f]{32}\Z")]
    boot_id: Text
    now_s: Number
    at: Number
    # not none: there would be nothing to acknowledge
    reports: Annotated[tuple[Report, ...], Meta(min_length=1, max_length=MOST_REPORTS)]
    schema: Literal[1] = SCHEMA
