"""What stands ready before the first variant: the source opened, the rows planned, the data read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from edgeml import plugins
from edgeml.arrays import dequantize
from edgeml.converter import State
from edgeml.engines import engine
from edgeml.errors import ConversionError, EdgemlError, InferenceError, ModelFileError, PlanError
from edgeml.findings import Finding
from edgeml.tensors import TensorSpec
from edgeml.words import FORMAT_OF_RUNTIME
from edgeml_converters.evaluate.accuracy import Naming
from edgeml_converters.evaluate.lints import check_label_names, lint_seen_ranges
from edgeml_converters.evaluate.samples import Samples, lint, read_samples
from edgeml_converters.formats.files import hash_tree, size_bytes
from edgeml_converters.formats.scheme import state_of
from edgeml_converters.formats.shapes import with_shapes
from edgeml_converters.graph import Plan, is_offered, no_way, plan, this_machine
from edgeml_converters.steps.onnx import with_unknown_operators
from edgeml_converters.variants.artifact import Artifact, random_samples, runs_here
from edgeml_converters.variants.judgements import JudgementCache
from edgeml_converters.variants.make import Maker
from edgeml_converters.variants.request import Request, wanted_rows
from edgeml_converters.variants.rows import Row
from edgeml_converters.variants.step_runner import Executor, calibrates
from edgeml_converters.variants.trimmed import with_trimmed
from edgeml_converters.variants.workspace import Progress, Workspace

PARITY_SAMPLES: Final = 8
"""Samples on which each step is compared with its source."""


@dataclass(frozen=True, slots=True)
class SourceModel:
    """The model that was converted."""

    path: Path
    state: State
    sha256: str
    size_bytes: int
    artifact: Artifact


@dataclass(frozen=True, slots=True)
class Prepared:
    """What stands ready before the first variant is made."""

    source: SourceModel
    rows: tuple[Row, ...]
    plans: Mapping[str, Plan]
    """By the row's name, of those whose status is ok."""
    maker: Maker


@contextmanager
def prepared(request: Request, space: Workspace) -> Iterator[Prepared]:
    """Open the source, plan the rows and read the data; the source's engine is freed at the end.

    Raises:
        ModelFileError: the source is damaged or foreign.
        DataError: calibration or evaluation data that cannot be used.
        UsageError: a metric that does not exist, a shape for no input.
    """
    source = _open_source(request, space.progress)
    executor = Executor(
        source.artifact, space.scratch, space.steps, request.input_shapes, request.trust_code, space.progress
    )
    rows, plans = planned(request, source.state)
    try:
        maker = _prepare(request, executor, space.judgements, rows, plans)
        yield Prepared(source, *with_trimmed(request, rows, plans, executor), maker)
    finally:
        source.artifact.release()


def _open_source(request: Request, progress: Progress) -> SourceModel:
    progress("read the source")
    state = state_of(request.source)
    sha256 = hash_tree(request.source)
    artifact = Artifact(request.source, state, sha256)
    if runs_here(state.format):
        try:
            session = artifact.session()
        except InferenceError as error:
            raise with_unknown_operators(error, request.source) from error
        artifact.outputs = session.outputs
        _set_inputs(artifact, with_shapes(session.inputs, request.input_shapes))
    return SourceModel(request.source, state, sha256, size_bytes(request.source), artifact)


def _set_inputs(artifact: Artifact, inputs: tuple[TensorSpec, ...]) -> None:
    for spec in (*inputs, *artifact.outputs):
        if np.dtype(spec.dtype).kind not in "fiub":
            raise ConversionError(
                f"{artifact.path.name}: tensor {spec.name!r} does not hold numbers; "
                "cut the part that works on text off the model, and convert the rest"
            )
    artifact.inputs = inputs
    artifact.naming = Naming.own(inputs, artifact.outputs)


def planned(request: Request, state: State) -> tuple[tuple[Row, ...], dict[str, Plan]]:
    """Plan each row; what cannot be planned is a row with its reason."""
    steps, available = plugins.conversion_steps(), this_machine()
    plans: dict[str, Plan] = {}
    rows = []
    for row in wanted_rows(request):
        if row.status != "ok":
            rows.append(row)
            continue
        here = engine(row.runtime)
        if here is not None and here.lacking is not None:
            rows.append(row.without("unavailable", here.lacking))
            continue
        goal = State(FORMAT_OF_RUNTIME[row.runtime], row.scheme)
        try:
            way = plan(state, goal, steps, available)
        except PlanError as error:
            if not request.searches or is_offered(goal, steps):
                rows.append(row.without("unavailable", str(error), no_way(row.runtime, state, goal, steps)))
            continue
        try:
            way.require_runnable()
        except PlanError as error:
            rows.append(row.without("unavailable", str(error), way.lacks))
            continue
        if request.calibration is None and any(calibrates(step) for step in way.steps):
            reason = f"{row.scheme} needs calibration data (--calibration)"
            rows.append(row.without("unavailable", reason, reason.removeprefix(f"{row.scheme} ")))
            continue
        plans[row.name] = way
        rows.append(row)
    return tuple(rows), plans


def _prepare(
    request: Request,
    executor: Executor,
    judgements: JudgementCache,
    rows: Sequence[Row],
    plans: Mapping[str, Plan],
) -> Maker:
    """Learn the source's signature, read the data, and set the parity samples."""
    source = executor.source
    wanted = [row for row in rows if row.status == "ok"]
    if not source.inputs:
        _probe(request, executor, [plans[row.name] for row in wanted])
    found: tuple[Finding, ...] = ()
    calibration = evaluation = None
    post = request.postprocess
    check_label_names(request.label_names, source.outputs, post.output, post.label_offset)
    if source.inputs:
        given = (source.inputs, request.preprocess, request.label_names, executor.scratch)
        if request.calibration is not None and any(
            calibrates(step) for row in wanted for step in plans[row.name].steps
        ):
            calibration = read_samples("calibration", request.calibration, *given)
        if request.evaluation is not None:
            evaluation = read_samples("evaluation", request.evaluation, *given)
        found = lint(calibration, evaluation) + _lint_source(source, calibration, evaluation)
    known = evaluation or calibration
    if known is not None:
        executor.use_samples(known.spool.first(PARITY_SAMPLES))
    elif source.inputs:
        executor.use_samples(random_samples(source.inputs, PARITY_SAMPLES))
    _refuse_nothing_but_nan(source)
    maker = Maker(request, executor, calibration, evaluation, found, judgements=judgements)
    maker.judge_source()
    return maker


def _refuse_nothing_but_nan(source: Artifact) -> None:
    """Refuse a source that nothing can be compared with.

    Raises:
        ModelFileError: all that it gives for all samples is NaN.
    """
    given = [array for one in source.parity or () for array in one.values()]
    if given and all(array.dtype.kind == "f" and np.isnan(array).all() for array in given):
        raise ModelFileError(
            f"{source.path.name}: every output is NaN, for each of {len(source.parity or ())} samples; look "
            "for NaN among its weights, and whether the samples are what it takes"
        )


def _probe(request: Request, executor: Executor, plans: Sequence[Plan]) -> None:
    """Learn the signature of a source that nothing here runs, by the quickest first step that works."""
    firsts = {plan_.steps[0].name: plan_.steps[0] for plan_ in plans if plan_.steps}
    for step in sorted(firsts.values(), key=lambda one: one.cost):
        try:
            inputs, executor.source.outputs = executor.probe(step)
        except EdgemlError:
            continue  # each row that needs the step tells the error as its reason
        _set_inputs(executor.source, with_shapes(inputs, request.input_shapes))
        return


def _lint_source(
    source: Artifact, calibration: Samples | None, evaluation: Samples | None
) -> tuple[Finding, ...]:
    """Compare the data with what a quantized source says that it saw."""
    seen = {}
    for spec in source.inputs:
        if spec.quantization is not None:
            info = np.iinfo(spec.dtype)
            low, high = dequantize(np.array([info.min, info.max]), spec.quantization)
            seen[spec.name] = (float(low), float(high))
    found: tuple[Finding, ...] = ()
    for data in (calibration, evaluation):
        if data is not None and seen:
            found += lint_seen_ranges(data.summary, seen, "the quantized source")
    return found
