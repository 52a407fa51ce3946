"""What a batch must keep to before it is stored: names, counts, lengths, finite numbers."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Final

from edgeml.errors import MessageError
from edgeml.telemetry.exponential import ExponentialHistogram
from edgeml.telemetry.report import (
    MOST_CLASSES,
    MOST_ERRORS,
    MOST_FEATURES,
    MOST_REPORTS,
    MOST_SAMPLES,
    OTHER,
    SCHEMA,
    Batch,
    ModelWindow,
    Report,
    Sample,
)
from edgeml_devices.server.telemetry.day_files import MODELS

MOST_COUNT: Final = 2**53
"""Counts stay below: every language has them exactly."""
_MOST_SUM: Final = 2**63
_TEXT: Final = 128
_BUCKETS: Final = 4096
_BINS: Final = 1024
_RFF: Final = 1024
_STAGES: Final = 16
_QUANTITIES: Final = 64
_SCALES: Final = range(-10, 21)
"""OpenTelemetry's."""
_LONGEST_S: Final = 366 * 86400.0
_RAW_BYTES: Final = 64 * 1024
_EPOCH: Final = re.compile(r"[0-9a-f]{32}").fullmatch
_LINK: Final = re.compile(r"[0-9a-f]{16}").fullmatch


def check(batch: Batch) -> None:
    """Refuse what cannot be true, or is too much.

    Raises:
        MessageError: names the report by its ``seq``, and the field.
    """
    if batch.schema != SCHEMA:
        raise MessageError(f"schema {batch.schema} is not known here; this server takes {SCHEMA}")
    if not _EPOCH(batch.epoch):
        raise MessageError("epoch: 32 hexadecimal digits are wanted")
    if len(batch.reports) > MOST_REPORTS:
        raise MessageError(f"{len(batch.reports)} reports; a batch may have {MOST_REPORTS}")
    try:
        _text("boot_id", batch.boot_id)
        _finite("now_s", batch.now_s)
        _finite("at", batch.at)
    except ValueError as error:
        raise MessageError(str(error)) from error
    for report in batch.reports:
        try:
            _report(report)
        except ValueError as error:
            raise MessageError(f"report {report.seq}: {error}") from error


def _report(report: Report) -> None:
    if report.schema != SCHEMA:
        raise ValueError(f"schema {report.schema} is not known here; this server takes {SCHEMA}")
    first, windows = report.begins, report.windows
    if not 0 <= first <= report.seq < MOST_COUNT:
        raise ValueError(f"first, seq: {first} to {report.seq} are no numbers of windows")
    if not 1 <= windows <= report.seq - first + 1:
        raise ValueError(f"windows: {windows} from {first} to {report.seq} cannot be")
    if not _LINK(report.link) or not (report.prev == "" or _LINK(report.prev)):
        raise ValueError("link, prev: 16 hexadecimal digits are wanted")
    _text("boot_id", report.boot_id)
    _finite("at", report.at)
    _finite("start_s", report.start_s)
    _finite("end_s", report.end_s)
    if not 0 <= report.end_s - report.start_s <= _LONGEST_S:
        raise ValueError(f"start_s, end_s: a window of {report.end_s - report.start_s:g} s cannot be")
    _machine(report)
    if len(report.models) > MODELS:
        raise ValueError(f"models: {len(report.models)}, at most {MODELS} are taken")
    for place, window in enumerate(report.models):
        try:
            _window(window)
        except ValueError as error:
            raise ValueError(f"models[{place}].{error}") from error


def _machine(report: Report) -> None:
    lost = report.lost
    for name in ("overwritten", "merged", "evicted", "damaged"):
        _count(f"lost.{name}", getattr(lost, name))
    if report.energy_joules is not None:
        _finite("energy_joules", report.energy_joules)
    if len(report.system) > _QUANTITIES:
        raise ValueError(f"system: {len(report.system)} quantities, at most {_QUANTITIES} are taken")
    for name, one in report.system.items():
        _text("system", name)
        if not (math.isfinite(one.min) and math.isfinite(one.mean) and math.isfinite(one.max)):
            raise ValueError(f"system.{name}: not a number")
        _count(f"system.{name}.count", one.count)


def _window(window: ModelWindow) -> None:
    for name in ("model", "variant", "runtime", "reference"):
        _text(name, getattr(window, name))
    if not 0 <= window.release < _MOST_SUM:
        raise ValueError(f"release: {window.release} is no release")
    for name in ("calls", "rff_count", "processes", "killed"):
        _count(name, getattr(window, name))
    _counted("errors", window.errors, MOST_ERRORS)
    _counted("classes", window.classes, MOST_CLASSES)
    if len(window.latency) > _STAGES:
        raise ValueError(f"latency: {len(window.latency)} stages, at most {_STAGES} are taken")
    for stage, histogram in window.latency.items():
        _text("latency", stage)
        _histogram(f"latency.{stage}", histogram)
    if window.confidence is not None:
        _histogram("confidence", window.confidence)
    _features(window)
    if len(window.samples) > MOST_SAMPLES:
        raise ValueError(f"samples: {len(window.samples)}, at most {MOST_SAMPLES} are taken")
    for sample in window.samples:
        _sample(sample)


def _features(window: ModelWindow) -> None:
    if len(window.features) > MOST_FEATURES + (OTHER in window.features):
        raise ValueError(f"features: {len(window.features)}, at most {MOST_FEATURES} are taken")
    for name, counts in window.features.items():
        _text("features", name)
        if len(counts) > _BINS:
            raise ValueError(f"features.{name}: {len(counts)} bins, at most {_BINS} are taken")
        _counts(f"features.{name}", counts)
    if len(window.rff_sum) > _RFF:
        raise ValueError(f"rff_sum: {len(window.rff_sum)} sums, at most {_RFF} are taken")
    # a sum is finite only if all are
    if window.rff_sum and not math.isfinite(sum(map(abs, window.rff_sum))):
        raise ValueError("rff_sum: not a number")


def _sample(sample: Sample) -> None:
    _finite("samples.at", sample.at)
    for name, number in (("latency_s", sample.latency_s), ("confidence", sample.confidence)):
        if number is not None:
            _finite(f"samples.{name}", number)
    for name, text in (("label", sample.label), ("error", sample.error)):
        if text is not None:
            _text(f"samples.{name}", text)
    if sample.features is not None:
        if len(sample.features) > _BINS:
            raise ValueError(f"samples.features: {len(sample.features)}, at most {_BINS} are taken")
        if not all(map(math.isfinite, sample.features)):
            raise ValueError("samples.features: not a number")
    if sample.raw is not None and len(sample.raw) > _RAW_BYTES:
        raise ValueError(f"samples.raw: {len(sample.raw)} bytes, at most {_RAW_BYTES} are taken")


def _histogram(place: str, one: ExponentialHistogram) -> None:
    counts = one.counts
    if len(counts) > _BUCKETS:
        raise ValueError(f"{place}: {len(counts)} buckets, at most {_BUCKETS} are taken")
    _counts(place, counts)
    _count(f"{place}.zero", one.zero)
    if one.scale not in _SCALES or not -_MOST_SUM < one.offset < _MOST_SUM - _BUCKETS:
        raise ValueError(f"{place}: a histogram of scale {one.scale} from {one.offset} cannot be")
    if not 0 <= one.sum_nano < _MOST_SUM:
        raise ValueError(f"{place}.sum_nano: {one.sum_nano} is no sum")
    if (one.zero or counts) and not 0 <= one.min <= one.max < math.inf:
        raise ValueError(f"{place}: from {one.min} to {one.max} cannot be")
    if not (one.zero or counts) and (one.min, one.max) != (math.inf, -math.inf):
        raise ValueError(f"{place}: a least and a greatest of nothing")


def _counted(place: str, counts: Mapping[str, int], most: int) -> None:
    if len(counts) > most + (OTHER in counts):
        raise ValueError(f"{place}: {len(counts)}, at most {most} are taken")
    for name in counts:
        _text(place, name)
    _counts(place, tuple(counts.values()))


def _counts(place: str, counts: Sequence[int]) -> None:
    if counts and (min(counts) < 0 or max(counts) >= MOST_COUNT):
        raise ValueError(f"{place}: counts are from 0 to 2**53 - 1")


def _count(place: str, value: int) -> None:
    if not 0 <= value < MOST_COUNT:
        raise ValueError(f"{place}: {value} is no count")


def _text(place: str, text: str) -> None:
    if len(text) > _TEXT or "\0" in text:
        raise ValueError(f"{place}: at most {_TEXT} characters are taken, and no NUL")


def _finite(place: str, number: float) -> None:
    if not math.isfinite(number):
        raise ValueError(f"{place}: not a number")
