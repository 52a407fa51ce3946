"""``sensitivities``: the ranking of a model's activations for each runtime."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeml.converter import CalibrationMethod
from edgeml.errors import EdgemlError
from edgeml.preprocess import Preprocess
from edgeml.tensors import Shape
from edgeml.words import RUNTIMES, RuntimeName
from edgeml_converters.arguments import DataArgument, read_data, read_names, read_targets
from edgeml_converters.graph import Plan
from edgeml_converters.sensitivity.noise import Sensitivity
from edgeml_converters.sensitivity.ranking import ranked_row
from edgeml_converters.variants.make import Maker
from edgeml_converters.variants.prepare import prepared
from edgeml_converters.variants.request import Request
from edgeml_converters.variants.rows import Row
from edgeml_converters.variants.workspace import workspace


@dataclass(frozen=True, slots=True)
class Ranking:
    """One runtime's activations, the most sensitive first."""

    runtime: RuntimeName
    activations: tuple[Sensitivity, ...]
    reason: str = ""
    """Why there are none."""


def sensitivities(
    source: Path,
    *,
    calibration: DataArgument,
    target: str,
    runtimes: Sequence[str],
    preprocess: Preprocess,
    method: CalibrationMethod,
    input_shapes: Mapping[str, Shape],
    trust_code: bool,
    use_cache: bool,
    progress: Callable[[str], None],
) -> tuple[Ranking, ...]:
    """Quantize a float model for each runtime to static int8, and rank what that takes from its activations.

    Args:
        source: a float model, in any format that ``convert`` reads.
        calibration: data as ``convert`` takes them.
        target: whose CPU the quantizers follow.
        runtimes: none: all that the target has.
        preprocess: how a raw sample becomes an input.
        method: how the quantizers find their ranges.
        input_shapes: sizes of free dimensions, by input name.
        trust_code: let a file run the code that it carries.
        use_cache: take steps that were done before from the cache.
        progress: is called with what is being done.

    Raises:
        ModelFileError: the source is damaged or foreign.
        DataError: data that cannot be used.
        UsageError: an unknown target or runtime.
    """
    with workspace(use_cache=use_cache, progress=progress) as space:
        request = Request(
            source=source,
            targets=read_targets(target),
            schemes=("int8_static",),
            runtimes=read_names("runtime", runtimes, RUNTIMES),
            calibration=read_data("calibration", calibration, space.scratch),
            preprocess=preprocess,
            method=method,
            golden=0,
            measure=False,
            input_shapes=input_shapes,
            trust_code=trust_code,
        )
        with prepared(request, space) as ready:
            return tuple(_ranked(row, ready.plans, ready.maker) for row in ready.rows)


def _ranked(row: Row, plans: Mapping[str, Plan], maker: Maker) -> Ranking:
    if row.status != "ok":
        return Ranking(row.runtime, (), row.told)
    maker.executor.stage = f"{row.runtime}: "
    try:
        return Ranking(row.runtime, ranked_row(row, plans[row.name].steps, maker))
    except EdgemlError as error:
        return Ranking(row.runtime, (), str(error))
