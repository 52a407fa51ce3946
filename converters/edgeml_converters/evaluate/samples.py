"""Calibration and evaluation data of one conversion: read once, linted on the way, kept for many passes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from edgeml.arrays import Array
from edgeml.data import DataDeclaration, Dataset, open_declared
from edgeml.errors import DataError
from edgeml.findings import Finding
from edgeml.preprocess import Preprocess
from edgeml.tensors import TensorSpec
from edgeml_converters.evaluate.lints import (
    DataSummary,
    DataWatch,
    Role,
    lint_calibration,
    lint_constant,
    lint_pair,
    lint_raw,
)
from edgeml_converters.evaluate.spool import Spool


@dataclass(frozen=True, slots=True)
class Samples:
    """Data as the model takes them."""

    role: Role
    source: str
    spool: Spool
    summary: DataSummary
    labels: Array | None
    """[N] or [N,…]."""
    label_names: tuple[str, ...]
    slices: Array | None = None
    """The part that each sample belongs to, int64 [N]; ``None``: parts are the classes."""
    slice_names: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    """About how the samples stand in their source, before pre-processing."""

    @property
    def count(self) -> int:
        """How many samples there are."""
        return self.summary.count

    @property
    def sha256(self) -> str:
        """Hash of the data and of how they are read."""
        return self.spool.sha256


def read_samples(
    role: Role,
    declaration: DataDeclaration,
    inputs: tuple[TensorSpec, ...],
    preprocess: Preprocess,
    label_names: tuple[str, ...],
    scratch: Path,
) -> Samples:
    """Read declared data through the pre-processing.

    Raises:
        DataError: missing, unreadable, empty, NaN, or not fitting the model's inputs.
    """
    data: Dataset = open_declared(declaration, inputs=inputs, preprocess=preprocess, label_names=label_names)
    spool = Spool(scratch / f"{role}.samples", data.sha256)
    watch = DataWatch(role, _as_fed(data, inputs))
    labels = data.labels
    try:
        for place, sample in enumerate(data):
            watch.see(sample, None if labels is None else labels[place])
            spool.append(sample)
    finally:
        spool.close()
    found = lint_raw(role, next(iter(data.raw())), inputs, preprocess)
    parts, names = _slices(declaration, inputs, preprocess, len(spool))
    return Samples(role, data.source, spool, watch.summary(), labels, data.label_names, parts, names, found)


def _slices(
    declaration: DataDeclaration, inputs: tuple[TensorSpec, ...], preprocess: Preprocess, count: int
) -> tuple[Array | None, tuple[str, ...]]:
    """Read what parts the samples, from where labels may stand.

    Raises:
        DataError: it names no parts, or not one for each sample.
    """
    if declaration.slices is None:
        return None, ()
    path, suffix, keys = declaration.source.rpartition(".npz:")
    source = f"{path}{suffix}{keys.partition(',')[0]}"  # of data.npz:x,y the y is not what parts them
    parted = replace(declaration, source=source, labels=declaration.slices)
    data = open_declared(parted, inputs=inputs, preprocess=preprocess)
    found = data.labels
    if found is None or found.ndim != 1 or found.dtype.kind not in "iu" or len(found) != count:
        raise DataError(
            f"{declaration.source}: {declaration.slices!r} does not part the samples; "
            f"give one whole number or name for each of the {count}"
        )
    return found, data.label_names


def lint(calibration: Samples | None, evaluation: Samples | None) -> tuple[Finding, ...]:
    """Judge the data of one conversion."""
    findings: list[Finding] = []
    first = calibration or evaluation  # both go through the same pre-processing; one finding is enough
    findings += first.findings if first is not None else ()
    if calibration is not None:
        findings += lint_calibration(calibration.summary)
    if evaluation is not None:
        findings += lint_constant(evaluation.summary)
    if calibration is not None and evaluation is not None:
        findings += lint_pair(calibration.summary, evaluation.summary)
    return tuple(findings)


def _as_fed(data: Dataset, inputs: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
    """Give the inputs with the dtype that the first sample has: a quantized input takes float32 as well."""
    first = next(iter(data), None)
    if first is None:
        raise DataError(f"{data.source}: holds no samples")
    return tuple(
        TensorSpec(spec.name, spec.shape, first[spec.name].dtype.name)
        if spec.quantization is not None and spec.name in first
        else spec
        for spec in inputs
    )
