"""From one model to measured variants for several targets: plans, makes, compares, evaluates, chooses."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from edgeml import plugins
from edgeml.arrays import dequantize
from edgeml.converter import ConversionStep, State
from edgeml.engines import engine
from edgeml.errors import ConversionError, EdgemlError, InferenceError, MeasureError, PlanError
from edgeml.findings import Finding
from edgeml.measure import EMULATED
from edgeml.targets import host
from edgeml.tensors import TensorSpec
from edgeml.words import FORMAT_OF_RUNTIME
from edgeml_converters.evaluate import latency
from edgeml_converters.evaluate.accuracy import Naming
from edgeml_converters.evaluate.lints import check_label_names, lint_seen_ranges
from edgeml_converters.evaluate.samples import Samples, lint, read_samples
from edgeml_converters.formats.files import hash_tree, size_bytes
from edgeml_converters.formats.scheme import state_of
from edgeml_converters.graph import Plan, no_way, plan, this_machine
from edgeml_converters.steps.onnx import with_unknown_operators
from edgeml_converters.variants import findings
from edgeml_converters.variants.artifact import Artifact, random_samples, runs_here, with_shapes
from edgeml_converters.variants.choose import Choice, choose, may_be_chosen
from edgeml_converters.variants.compiled import with_compiled
from edgeml_converters.variants.control import Budget, Control
from edgeml_converters.variants.make import Evaluator
from edgeml_converters.variants.request import Request, wanted_rows
from edgeml_converters.variants.rows import Row
from edgeml_converters.variants.step_cache import StepCache
from edgeml_converters.variants.step_runner import CALIBRATED, Executor

PARITY_SAMPLES: Final = 8
"""Samples on which each step is compared with its source."""

Progress = Callable[[str], None]


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
    data: Evaluator


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a conversion came to, before it is written down."""

    request: Request
    source: SourceModel
    rows: tuple[Row, ...]
    choices: tuple[Choice, ...]
    data: Evaluator
    findings: tuple[Finding, ...]
    """About the data and the conversion as a whole; each row has its own besides."""
    machine: str
    """Class of the machine that measured."""


def run(request: Request, scratch: Path, cache: StepCache, progress: Progress) -> Outcome:
    """Do a conversion; everything it makes stands in ``scratch``.

    Raises:
        ModelFileError: the source is damaged or foreign.
        DataError: calibration or evaluation data that cannot be used.
        UsageError: a metric that does not exist, a gate that cannot be shown, a shape for no input.
        ConversionError: the source was changed while it was converted.
    """
    request.check_gates()
    with prepared(request, scratch, cache, progress) as ready:
        source, data = ready.source, ready.data
        made = _made(ready.rows, ready.plans, data)
    if request.compiles:
        made = with_compiled(request, made, scratch, progress)
    if request.measure:
        made = _measured(made, progress, request.measure_on)
    made = [_gated(request, row) for row in made]
    _check_unchanged(source)
    machine = _measured_by(made)
    choices = [
        choose(one.name, made, request.gates, None if one.name == machine else machine, request.objective)
        for one in request.targets
    ]
    return Outcome(
        request=request,
        source=source,
        rows=tuple(made),
        choices=tuple(choices),
        data=data,
        findings=(*data.findings, *_judged(request, data, made), *data.executor.findings),
        machine=machine,
    )


@contextmanager
def prepared(request: Request, scratch: Path, cache: StepCache, progress: Progress) -> Iterator[Prepared]:
    """Open the source, plan the rows and read the data; the source's engine is freed at the end.

    Raises:
        ModelFileError, DataError, UsageError: as ``run`` does.
    """
    source = _open_source(request, progress)
    executor = Executor(source.artifact, scratch, cache, request.input_shapes, request.trust_code, progress)
    rows, plans = _planned(request, source.state)
    try:
        yield Prepared(source, rows, plans, _prepare(request, executor, rows, plans))
    finally:
        source.artifact.release()


def _judged(request: Request, data: Evaluator, rows: Sequence[Row]) -> tuple[Finding, ...]:
    """Draw what a person should know from the whole."""
    labels = data.evaluation.labels if data.evaluation is not None else None
    names = data.evaluation.label_names if data.evaluation is not None else ()
    accuracy = data.reference.value if data.reference is not None else None
    return (
        *findings.layout_without_channels(request, data.executor.source.inputs),
        *findings.class_names_of_data(request, names, data.executor.source.outputs),
        *findings.softmax_twice(request, data.executor.source.parity or ()),
        *findings.nan_outputs(rows, data.executor.source.parity or ()),
        *findings.near_chance(data.metric, accuracy, labels),
        *findings.accuracy_unknown(request, data.metric),
        *findings.not_calibrated(request),
        *findings.runtimes_left_out(request, rows),
        *findings.accelerators_left_out(request, rows),
        *findings.edge_tpu_stops(rows),
    )


def _made(rows: Sequence[Row], plans: Mapping[str, Plan], data: Evaluator) -> list[Row]:
    """Make each row that was planned; gives all in their order."""
    planned = [row for row in rows if row.status == "ok"]
    last = [row for row in planned if data.executor.was_probed(plans[row.name].steps)]
    first = [row for row in planned if row not in last]
    made = {}
    for place, row in enumerate((*first, *last), 1):
        data.executor.stage = f"variant {place}/{len(planned)}, {row.name}: "
        made[row.name] = data.make(row, plans[row.name].steps)
    budget = Budget(data.request.budget_s)
    mixed = [_controlled(row, plans[row.name], data, budget) for row in made.values()]
    data.executor.stage = ""
    return [*(made.get(row.name, row) for row in rows), *(row for row in mixed if row is not None)]


def _controlled(row: Row, plan_: Plan, data: Evaluator, budget: Budget) -> Row | None:
    """Keep parts of a static int8 variant in float where it loses more than allowed, unless told not to."""
    gates = data.request.gates

    def holds(one: Row) -> bool:
        near = one.status == "ok" and may_be_chosen(one, gates.allowed_drop)
        return near and gates.accuracy_broken_by(one) is None

    if not data.request.accuracy_control or row.scheme != "int8_static" or row.edge_tpu or holds(row):
        return None
    if row.status not in {"ok", "failed"}:
        return None
    return Control(row, plan_.steps, data, holds, budget).run()


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
    artifact.naming = Naming(
        {spec.name: spec.name for spec in inputs}, {spec.name: spec.name for spec in artifact.outputs}
    )


def _planned(request: Request, state: State) -> tuple[tuple[Row, ...], dict[str, Plan]]:
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
            planned = plan(state, goal, steps, available)
        except PlanError as error:
            rows.append(row.without("unavailable", str(error), no_way(row.runtime, state, goal, steps)))
            continue
        try:
            planned.require_runnable()
        except PlanError as error:
            rows.append(row.without("unavailable", str(error), planned.lacks))
            continue
        if request.calibration is None and any(_calibrates(step) for step in planned.steps):
            reason = f"{row.scheme} needs calibration data (--calibration)"
            rows.append(row.without("unavailable", reason, reason.removeprefix(f"{row.scheme} ")))
            continue
        plans[row.name] = planned
        rows.append(row)
    return tuple(rows), plans


def _calibrates(step: ConversionStep) -> bool:
    return step.target.scheme in CALIBRATED and step.source.scheme != step.target.scheme


def _prepare(
    request: Request, executor: Executor, rows: Sequence[Row], plans: Mapping[str, Plan]
) -> Evaluator:
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
            _calibrates(step) for row in wanted for step in plans[row.name].steps
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
    evaluator = Evaluator(request, executor, calibration, evaluation, found)
    evaluator.judge_source()
    return evaluator


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


def _measured_by(rows: Sequence[Row]) -> str:
    """Name the class of the machine that measured; of this one if none did."""
    return next((row.measured.machine.split()[0] for row in rows if row.measured.machine), host().name)


def _measured(rows: Sequence[Row], progress: Progress, url: str) -> list[Row]:
    jobs = [
        latency.Job(row.name, row.runtime, row.artifact, row.options)
        for row in rows
        if row.status == "ok" and row.artifact is not None and _is_measured(row, url)
    ]
    results = latency.measure(jobs, progress, url) if jobs else {}
    return [_with_measurement(row, results.get(row.name)) for row in rows]


def _is_measured(row: Row, url: str) -> bool:
    """Say whether to try: what is compiled for an accelerator is left out where this machine has none."""
    return row.accelerator is None or url != latency.HERE or row.accelerator in host().accelerators


def _with_measurement(row: Row, result: latency.Result | None) -> Row:
    if result is None:
        return row
    if isinstance(result, MeasureError):
        finding = Finding(
            "not-measured", "warning", row.name, str(result), "run edgeml bench on the file to see more"
        )
        return replace(row, findings=(*row.findings, finding))
    measured = replace(
        row.measured,
        latency_ms=None if result.emulated else result.latency_ms,
        load_ms=None if result.emulated else result.load_ms,
        peak_memory_bytes=result.peak_memory_bytes,
        machine=result.machine,
        threads=result.threads,
    )
    row = replace(row, measured=measured, runtime_version=result.runtime_version)
    if result.emulated:
        finding = Finding(
            "emulated",
            "info",
            row.name,
            f"{EMULATED}: this is no latency of a {result.machine}",
            "measure on the board: --measure ssh://USER@BOARD",
        )
        return replace(row, findings=(*row.findings, finding))
    return replace(row, findings=(*row.findings, *findings.noisy(row)))


def _gated(request: Request, row: Row) -> Row:
    broken = request.gates.broken_by(row) if row.status == "ok" else None
    return row if broken is None else row.without("gate", broken)


def _check_unchanged(source: SourceModel) -> None:
    if hash_tree(source.path) != source.sha256:
        raise ConversionError(
            f"{source.path} was changed while it was converted; restore it, keep other programs from "
            "writing to it, and convert again"
        )
