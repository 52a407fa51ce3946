"""What a batch must keep to besides the bounds of its types: what cannot be true of its reports."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from edgeml.errors import MessageError
from edgeml.telemetry.exponential import ExponentialHistogram
from edgeml.telemetry.packed import check_counts, check_means, iterable_counts
from edgeml.telemetry.report import Batch, ModelWindow, Report
from edgeml_devices.server.telemetry.wire_types import BINS, BUCKETS, LARGEST, MOST_COUNT

_LONGEST_S: Final = 366 * 86400.0
_HIGHEST: Final = 1e9
_OCTAVES: Final = 30
"""What histograms hold, 1e-9 to 1e9, lies within 2**-30 to 2**30; a sum of others would fill the memory."""


def check(batch: Batch) -> None:
    """Refuse what cannot be true.

    Raises:
        MessageError: names the report by its ``seq``, and the field.
    """
    if "\0" in batch.boot_id:
        raise MessageError("boot_id: there is a NUL in it")
    for report in batch.reports:
        try:
            _report(report)
        except ValueError as error:
            raise MessageError(f"report {report.seq}: {error}") from error


def _report(report: Report) -> None:
    first, windows = report.begins, report.windows
    if first > report.seq:
        raise ValueError(f"first, seq: from {first} to {report.seq} there is no window")
    if windows > report.seq - first + 1:
        raise ValueError(f"windows: {windows} from {first} to {report.seq} cannot be")
    if not 0 <= report.end_s - report.start_s <= _LONGEST_S:
        raise ValueError(f"start_s, end_s: a window of {report.end_s - report.start_s:g} s cannot be")
    if "\0" in report.boot_id:
        raise ValueError("boot_id: there is a NUL in it")
    for place, window in enumerate(report.models):
        try:
            _window(window)
        except ValueError as error:
            raise ValueError(f"models[{place}].{error}") from error


def _window(window: ModelWindow) -> None:
    if "\0" in f"{window.model}{window.variant}{window.runtime}{window.reference}":
        raise ValueError("model, variant, runtime, reference: there is a NUL in one of them")
    errors = sum(window.errors.values())
    if errors > window.calls:
        raise ValueError(f"errors: {errors} of {window.calls} calls")
    # what is wrong is named only where something is: nearly nothing ever is
    for stage, histogram in window.latency.items():
        if wrong := _wrong(histogram, window.calls):
            raise ValueError(f"latency.{stage}{wrong}")
    if window.confidence is not None and (wrong := _wrong(window.confidence, window.calls)):
        raise ValueError(f"confidence{wrong}")
    _packed_features(window)


def _packed_features(window: ModelWindow) -> None:
    for name, bins in window.features.items():
        if isinstance(bins, bytes):
            try:
                check_counts(bins, BINS, MOST_COUNT)
            except ValueError as error:
                raise ValueError(f"features.{name}: {error}") from error
    if isinstance(window.rff_sum, bytes):
        try:
            check_means(window.rff_sum, BINS, LARGEST)
        except ValueError as error:
            raise ValueError(f"rff_sum: {error}") from error


def _wrong(one: ExponentialHistogram, calls: int) -> str:
    """Say what is wrong with a histogram, if something is."""
    counts: Sequence[int] = one.counts
    if isinstance(counts, bytes):
        try:
            check_counts(counts, BUCKETS, MOST_COUNT)
        except ValueError as error:
            return f".counts: {error}"
        counts = iterable_counts(counts)
    values = one.zero + sum(counts)
    if values > calls:
        return f": {values} values of {calls} calls"
    if counts:
        end = math.ldexp(_OCTAVES, one.scale)
        if one.offset < -end or one.offset + len(counts) > end:
            return ".offset: buckets beyond 1e-9 to 1e9"
    if one.zero or counts:
        return "" if 0 <= one.min <= one.max <= _HIGHEST else f": from {one.min} to {one.max} cannot be"
    if one.min != math.inf or one.max != -math.inf:
        return ": a least and a greatest of nothing"
    return ""
