"""What every quantizer has in common: the guard around its tool, checked samples, the errors they share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np

from edgeml.arrays import require_inputs
from edgeml.converter import Calibration, Sample, State, StepRequest, StepResult
from edgeml.errors import (
    AlreadyQuantizedError,
    DataError,
    InputError,
    NothingToQuantizeError,
    QuantizationError,
)
from edgeml.findings import Finding
from edgeml.tensors import TensorSpec
from edgeml.words import Format, RuntimeName, Scheme
from edgeml_converters.quantize.sparsity import PRUNED, UNPAID
from edgeml_converters.steps.step import FormatStep, distributions, tool_errors


def quantization_step(
    runtime: RuntimeName,
    format_: Format,
    scheme: Scheme,
    requires: Sequence[str],
    cost: float,
    action: Callable[[StepRequest, str], StepResult],
) -> FormatStep:
    """Give the step ``<runtime>-<scheme>`` from the float model of ``format_``; ``action`` gets its name."""
    name = f"{runtime}-{scheme.replace('_', '-')}"

    def run(request: StepRequest) -> StepResult:
        with quantizer_errors(name, request.source):
            if request.settings.sparsity and (runtime, scheme) != PRUNED:
                raise QuantizationError(f"{name}: {UNPAID.get(runtime, 'weights are not pruned here')}")
            return action(request, name)

    return FormatStep(
        name, State(format_, "float32"), State(format_, scheme), distributions(*requires), cost, run
    )


def quantizer_errors(step: str, source: Path) -> AbstractContextManager[None]:
    """Turn whatever a quantizer raises into QuantizationError; our own errors pass."""
    return tool_errors(
        step,
        source,
        kind=QuantizationError,
        failed="could not be quantized",
        remedy="try another scheme, or keep float32",
    )


def refuse_quantized(source: Path, evidence: str) -> NoReturn:
    """Raise the error for a model that is quantized already; ``evidence`` names what was found."""
    raise AlreadyQuantizedError(
        f"{source} is already quantized ({evidence} found); start from the float model"
    )


@dataclass(frozen=True, slots=True)
class Coverage:
    """Operators that hold weights, and how many of them a quantizer changed."""

    total: int
    quantized: int
    left: tuple[str, ...] = ()
    """Names of those that were left as they were."""


def judge_coverage(step: str, source: Path, found: Coverage, *, asked: bool = False) -> tuple[Finding, ...]:
    """Give a finding where a quantizer left operators with weights in float that nobody ``asked`` it to.

    Raises:
        NothingToQuantizeError: it quantized none.
    """
    if found.quantized == 0:
        what = "it has no operator with weights" if found.total == 0 else "the quantizer changed nothing"
        raise NothingToQuantizeError(
            f"{step}: 0 of {found.total} operators of {source.name} quantized: {what}; "
            f"keep float32, or use another scheme"
        )
    if found.quantized == found.total or asked:
        return ()
    names = ", ".join(found.left[:5]) + (", …" if len(found.left) > 5 else "")  # noqa: PLR2004 - a line's worth
    return (
        Finding(
            "operators-not-quantized",
            "warning",
            source.name,
            f"{found.quantized} of {found.total} operators with weights are in this scheme; not: {names}",
            "look at latency and size before this variant is used; another scheme or runtime may cover more",
        ),
    )


class CheckedSamples:
    """Calibration samples that fit the model: every one is looked at before a tool sees it. Re-iterable.

    Iterating raises DataError for a sample with a wrong name, shape or dtype, with NaN or infinity, and
    where there is no sample at all.
    """

    def __init__(self, step: str, calibration: Calibration | None, inputs: tuple[TensorSpec, ...]) -> None:
        if calibration is None:
            raise DataError(
                f"{step} needs calibration data: give some with --calibration (about 100 samples as the "
                f"model sees them in use)"
            )
        if len(calibration) == 0:
            raise DataError("the calibration data hold no samples")
        self._calibration = calibration
        self._inputs = inputs

    def __len__(self) -> int:
        return len(self._calibration)

    def __iter__(self) -> Iterator[Sample]:
        count = -1
        for count, sample in enumerate(self._calibration):
            self._check(count, sample)
            yield sample
        if count + 1 != len(self._calibration):
            raise DataError(
                f"the calibration data announced {len(self._calibration)} samples and gave {count + 1}; "
                f"a source that can be read only once cannot be used"
            )

    def _check(self, index: int, sample: Sample) -> None:
        try:
            require_inputs(self._inputs, sample)
        except InputError as error:
            raise DataError(f"calibration sample {index}: {error}") from error
        for spec in self._inputs:
            values = sample[spec.name]
            if values.dtype.kind == "f" and not np.isfinite(values).all():
                what = "NaN" if np.isnan(values).any() else "infinite values"
                raise DataError(
                    f"calibration sample {index} of input {spec.name!r} has {what}; "
                    f"remove or repair it, ranges from it would be worthless"
                )
