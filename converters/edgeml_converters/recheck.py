"""Holds the variants of a finished bundle against gates: by what the bundle says, or measured anew."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgeml import typed_json
from edgeml.bundle import Bundle
from edgeml.bundle_place import RECORD
from edgeml.converter import QuantizerSettings
from edgeml.errors import MeasureError, UsageError
from edgeml.installed import open_release
from edgeml.manifest import Manifest, Measured, Variant
from edgeml.measure import EMULATED
from edgeml_converters.evaluate import latency
from edgeml_converters.evaluate.metrics import open_metric
from edgeml_converters.evaluate.slices import SliceDrop, SliceValue, slice_drops
from edgeml_converters.variants.gates import Gates
from edgeml_converters.variants.rows import Row


@dataclass(frozen=True, slots=True)
class Verdict:
    """One variant, and the gate that it breaks."""

    row: Row
    broken: str | None


@dataclass(frozen=True, slots=True)
class _Slice:
    label: int
    count: int
    reference: float
    value: float


@dataclass(frozen=True, slots=True)
class _Recorded:
    """What a record says of a variant that its manifest does not."""

    name: str
    metric: str | None = None
    slices: tuple[_Slice, ...] = ()


@dataclass(frozen=True, slots=True)
class _Record:
    variants: tuple[_Recorded, ...]


def recheck(
    bundle: Path,
    gates: Gates,
    *,
    names: Sequence[str],
    measure_on: str | None,
    progress: Callable[[str], None],
) -> tuple[Verdict, ...]:
    """Hold variants against gates.

    Args:
        bundle: a file, or an extracted or installed one.
        gates: what they must hold.
        names: of the variants; none: those that were chosen for a target, or all where none was.
        measure_on: URL of a machine that measures latency anew; ``None``: what the bundle says.
        progress: is called with what is being done.

    Raises:
        BundleError: damaged or foreign.
        MessageError: the record, which is read for a gate on slices, is none.
        UsageError: no such variant, or a metric that a gate asks for and that cannot be opened here.
    """
    opened = open_release(bundle)
    variants = _wanted(opened.manifest, names)
    for file in (file for one in variants for file in one.files):
        opened.check(file.path)
    rows = [_row(one, gates) for one in variants]
    if gates.max_slice_drop is not None:
        slices = _slices(opened)
        rows = [replace(row, slices=slices.get(row.name, ())) for row in rows]
    if measure_on is not None:
        with tempfile.TemporaryDirectory(prefix="edgeml-check-") as scratch:
            folder = opened.extract(Path(scratch) / "bundle")
            jobs = [
                latency.Job(
                    one.name,
                    one.runtime,
                    folder / one.files[0].path,
                    one.options,
                    one.measured.threads or 1,
                )
                for one in variants
            ]
            results = latency.measure(jobs, progress, measure_on)
        rows = [_measured(row, results[row.name]) for row in rows]
    return tuple(Verdict(row, gates.broken_by(row)) for row in rows)


def _wanted(manifest: Manifest, names: Sequence[str]) -> Sequence[Variant]:
    chosen = [one for one in manifest.variants if one.extra.get("chosen_for")]
    return manifest.named(names) or chosen or manifest.variants


def _row(variant: Variant, gates: Gates) -> Row:
    measured = variant.measured
    return Row(
        variant.name,
        variant.runtime,
        variant.scheme,
        variant.targets,
        QuantizerSettings(),
        size_bytes=sum(one.size_bytes for one in variant.files if one.path != variant.fallback),
        measured=measured,
        drop_points=_drop(measured, gates),
    )


def _drop(measured: Measured, gates: Gates) -> float | None:
    """Give the points lost; ``None``: unknown, as by a metric that is not here and that no gate asks for."""
    if measured.metric is None or measured.accuracy is None or measured.float_accuracy is None:
        return None
    try:
        metric = open_metric(measured.metric)
    except UsageError:
        if gates.max_drop is None:
            return None
        raise
    return round(metric.drop_points(measured.float_accuracy, measured.accuracy), 6)


def _slices(bundle: Bundle) -> dict[str, tuple[SliceDrop, ...]]:
    """Give what each variant loses by class or slice; nothing, where there is no record."""
    if RECORD not in bundle.names:
        return {}
    where = f"{bundle.path}: {RECORD}"
    record = typed_json.read(_Record, typed_json.parse(bundle.read(RECORD), where), where)
    return {one.name: _drops(one) for one in record.variants}


def _drops(recorded: _Recorded) -> tuple[SliceDrop, ...]:
    if recorded.metric is None:
        return ()
    before = [SliceValue(one.label, one.count, one.reference) for one in recorded.slices]
    after = [SliceValue(one.label, one.count, one.value) for one in recorded.slices]
    return slice_drops(open_metric(recorded.metric), before, after)


def _measured(row: Row, result: latency.Result) -> Row:
    """Take a fresh latency; one that failed or is emulated is none."""
    if isinstance(result, MeasureError):
        return replace(row, measured=replace(row.measured, latency_ms=None), reason=str(result))
    fresh = None if result.emulated else result.latency_ms
    measured = replace(row.measured, latency_ms=fresh, machine=result.machine, threads=result.threads)
    return replace(row, measured=measured, reason=EMULATED if result.emulated else "")
