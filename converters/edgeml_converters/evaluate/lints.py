"""What can be wrong with calibration and evaluation data: errors where nothing good follows, or findings."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy as np

from edgeml.arrays import Array, require_inputs
from edgeml.errors import DataError, InputError
from edgeml.findings import Finding
from edgeml.preprocess import Preprocess
from edgeml.tensors import TensorSpec

Role = Literal["calibration", "evaluation"]

FEW_SAMPLES: Final = 32
"""Below this many calibration samples the ranges depend on chance."""
SCALE_FACTOR: Final = 2.0
"""Data of one source differ in spread by a few per cent; a forgotten /255, ·255 or mean/std by far more."""
SHIFT: Final = 1.0
"""Difference of the means, in standard deviations of the evaluation data, that no sampling explains."""


@dataclass(frozen=True, slots=True)
class InputSummary:
    """What the samples of one input hold."""

    name: str
    minimum: float
    maximum: float
    mean: float
    std: float


@dataclass(frozen=True, slots=True)
class DataSummary:
    """What one pass over calibration or evaluation data saw."""

    role: Role
    count: int
    inputs: tuple[InputSummary, ...]
    constant: tuple[int, ...]
    """Indices of samples in which every input has one value only."""
    digests: frozenset[bytes] = field(repr=False, default=frozenset())
    """16-byte hash of each distinct sample."""
    lowest_label: int | None = None
    highest_label: int | None = None

    @property
    def repeated(self) -> int:
        """Samples that occurred before."""
        return self.count - len(self.digests)


class DataWatch:
    """Looks at samples on their way to someone else; memory grows by 16 bytes a sample."""

    def __init__(self, role: Role, inputs: Sequence[TensorSpec]) -> None:
        self._role = role
        self._inputs = tuple(inputs)
        names = [spec.name for spec in inputs]
        self._count = 0
        self._minimum = dict.fromkeys(names, math.inf)
        self._maximum = dict.fromkeys(names, -math.inf)
        self._sum = dict.fromkeys(names, 0.0)
        self._squares = dict.fromkeys(names, 0.0)
        self._values = dict.fromkeys(names, 0)
        self._constant: list[int] = []
        self._digests: set[bytes] = set()
        self._labels: list[int | None] = [None, None]

    def see(self, sample: Mapping[str, Array], label: Any = None) -> None:
        """Look at one sample, batch dimension included.

        Raises:
            DataError: wrong names, shape, dtype or layout; NaN or infinity. Names the sample and input.
        """
        self._check(sample)
        digest = hashlib.blake2b(digest_size=16)
        constant = True
        for name, array in sample.items():
            digest.update(np.ascontiguousarray(array).data)
            low, high = self._measure(name, array)
            constant = constant and low == high
        if constant:
            self._constant.append(self._count)
        self._digests.add(digest.digest())
        if isinstance(label, (int, np.integer)):
            low_label, high_label = self._labels
            self._labels = [
                int(label) if low_label is None else min(low_label, int(label)),
                int(label) if high_label is None else max(high_label, int(label)),
            ]
        self._count += 1

    def summary(self) -> DataSummary:
        """Give what was seen so far."""
        inputs = []
        for name in self._values:
            values = max(1, self._values[name])
            mean = self._sum[name] / values
            variance = max(0.0, self._squares[name] / values - mean * mean)
            inputs.append(
                InputSummary(name, self._minimum[name], self._maximum[name], mean, math.sqrt(variance))
            )
        return DataSummary(
            self._role,
            self._count,
            tuple(inputs),
            tuple(self._constant),
            frozenset(self._digests),
            *self._labels,
        )

    def _check(self, sample: Mapping[str, Array]) -> None:
        try:
            require_inputs(self._inputs, sample)
        except InputError as error:
            raise DataError(f"{self._role} sample {self._count}: {error}") from error

    def _measure(self, name: str, array: Array) -> tuple[float, float]:
        low, high = float(array.min()), float(array.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            what = "NaN" if math.isnan(low) or math.isnan(high) else "infinite values"
            raise DataError(
                f"{self._role} sample {self._count} of input {name!r} has {what}; "
                "remove the sample, or mend the pre-processing that makes it"
            )
        self._minimum[name] = min(self._minimum[name], low)
        self._maximum[name] = max(self._maximum[name], high)
        flat = array.reshape(-1)
        if flat.dtype != np.float32:
            flat = flat.astype(np.float32)
        self._sum[name] += float(flat.sum(dtype=np.float64))
        self._squares[name] += float(flat @ flat)
        self._values[name] += flat.size
        return low, high


def lint_calibration(data: DataSummary) -> tuple[Finding, ...]:
    """Judge calibration data by themselves."""
    findings = []
    if data.count < FEW_SAMPLES:
        findings.append(
            Finding(
                "few-calibration-samples",
                "warning",
                "calibration data",
                f"{data.count} samples; below {FEW_SAMPLES} the ranges depend on chance",
                "give 100 or more samples of what the model will see",
            )
        )
    findings += lint_constant(data)
    if data.repeated:
        findings.append(
            Finding(
                "repeated-samples",
                "info",
                "calibration data",
                f"{data.repeated} of {data.count} samples occur more than once",
                "repeated samples cost time and tell nothing new; remove them",
            )
        )
    return tuple(findings)


def lint_raw(
    role: Role, raw: Mapping[str, Array], inputs: Sequence[TensorSpec], preprocess: Preprocess
) -> tuple[Finding, ...]:
    """Judge a sample as it stands in its source: integers that reach a float input as they are.

    A declared ``dtype`` says that this is meant.
    """
    declared = preprocess.scale != 1.0 or preprocess.zero_point or preprocess.mean or preprocess.std
    if declared or preprocess.dtype is not None:
        return ()
    return tuple(
        Finding(
            "undeclared-integer-data",
            "warning",
            f"input {spec.name}",
            f"the {role} data are {np.asarray(raw[spec.name]).dtype}, the model takes {spec.dtype}, and no "
            "pre-processing says what the integers stand for",
            "declare scale (1/255, say), zero_point, mean or std; if the model takes them as they are, "
            f"declare dtype={spec.dtype}",
        )
        for spec in inputs
        if spec.name in raw
        and spec.dtype.startswith("float")
        and np.asarray(raw[spec.name]).dtype.kind in "iu"
    )


def lint_pair(calibration: DataSummary, evaluation: DataSummary) -> tuple[Finding, ...]:
    """Judge calibration data against evaluation data: another scale, another offset, the same samples."""
    findings: list[Finding] = []
    known = {one.name: one for one in evaluation.inputs}
    for one in calibration.inputs:
        if one.name in known:
            findings += _lint_ranges(one, known[one.name])
    shared = len(calibration.digests & evaluation.digests)
    if shared:
        findings.append(
            Finding(
                "calibration-evaluation-overlap",
                "warning",
                "calibration data",
                f"{shared} of {calibration.count} calibration samples are among the {evaluation.count} "
                "evaluation samples",
                "keep them apart: the accuracy measured on data that was calibrated on flatters int8",
            )
        )
    return tuple(findings)


def lint_seen_ranges(
    data: DataSummary, seen: Mapping[str, tuple[float, float]], where: str
) -> tuple[Finding, ...]:
    """Judge data against the input ranges that a quantized model was made for."""
    findings = []
    for one in data.inputs:
        if one.name not in seen:
            continue
        low, high = seen[one.name]
        span = (one.maximum - one.minimum) / (high - low) if high > low else 1.0
        if 1 / SCALE_FACTOR <= span <= SCALE_FACTOR:
            continue
        findings.append(
            Finding(
                "range-outside-model",
                "warning",
                f"input {one.name}",
                f"{data.role} data span {_span(one)}, {where} was made for [{low:.4g}, {high:.4g}]",
                "check scale, mean and std of the pre-processing",
            )
        )
    return tuple(findings)


def check_labels(data: DataSummary, classes: int, label_offset: int) -> None:
    """Check that every label has a place in the output.

    Raises:
        DataError: a label below zero, or beyond the output's classes.
    """
    if data.lowest_label is None or data.highest_label is None or classes < 2:  # noqa: PLR2004 - one score has no places
        return
    low, high = data.lowest_label + label_offset, data.highest_label + label_offset
    if low < 0 or high >= classes:
        raise DataError(
            f"{data.role} labels run from {data.lowest_label} to {data.highest_label}, the output has "
            f"{classes} places (class = place - {label_offset}); "
            "check that the labels belong to this model, and label_offset"
        )


def check_label_names(
    names: Sequence[str], outputs: Sequence[TensorSpec], judged: str | None, offset: int
) -> None:
    """Check that there is a class name for each place of an output [N, classes].

    Raises:
        DataError: more or fewer names than places, those before ``offset`` not counted.
    """
    chosen = [spec for spec in outputs if judged in (None, spec.name)]
    if not names or not chosen or len(chosen[0].shape) != 2:  # noqa: PLR2004 - scores of one sample are a vector
        return
    places = chosen[0].shape[1]
    if places is None or places < 2 or len(names) == places - offset:  # noqa: PLR2004 - one score has no places
        return
    raise DataError(
        f"{len(names)} labels, output {chosen[0].name!r} has {places}"
        f"{f' of which label_offset leaves {places - offset}' if offset else ''}; "
        "give one name a line for each place, or set label_offset if the output begins with a background"
    )


def _lint_ranges(calibration: InputSummary, evaluation: InputSummary) -> list[Finding]:
    if evaluation.std == 0 or calibration.std == 0:
        return []
    factor = calibration.std / evaluation.std
    shift = abs(calibration.mean - evaluation.mean) / evaluation.std
    if 1 / SCALE_FACTOR <= factor <= SCALE_FACTOR and shift <= SHIFT:
        return []
    return [
        Finding(
            "calibration-scale",
            "warning",
            f"input {calibration.name}",
            f"calibration data span {_span(calibration)}, evaluation data {_span(evaluation)} "
            f"(spread ×{factor:.3g})",
            "give both the same pre-processing; int8 ranges from data at another scale are worthless",
        )
    ]


def lint_constant(data: DataSummary) -> tuple[Finding, ...]:
    """Report samples that hold one value only."""
    if not data.constant:
        return ()
    shown = ", ".join(str(index) for index in data.constant[:5])
    more = " …" if len(data.constant) > 5 else ""  # noqa: PLR2004 - as many as shown
    return (
        Finding(
            "constant-samples",
            "warning",
            f"{data.role} data",
            f"{len(data.constant)} of {data.count} samples hold one value only (sample {shown}{more})",
            "look at these samples: often a decoding error or an empty recording",
        ),
    )


def _span(one: InputSummary) -> str:
    return f"[{one.minimum:.4g}, {one.maximum:.4g}]"
