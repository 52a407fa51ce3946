"""From one model to measured variants for several targets: plans, makes, compares, evaluates, chooses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from edgeml.errors import ConversionError
from edgeml.findings import Finding
from edgeml_converters.evaluate.latency import HERE
from edgeml_converters.formats.files import hash_tree
from edgeml_converters.search import findings
from edgeml_converters.search.choose import choose
from edgeml_converters.search.crew import at_once
from edgeml_converters.search.measuring import measured, measured_by
from edgeml_converters.search.outcome import Outcome
from edgeml_converters.search.profiling import profiled
from edgeml_converters.search.trials import Budget
from edgeml_converters.search.trimming import compared
from edgeml_converters.variants.compiled import with_compiled
from edgeml_converters.variants.make import Maker
from edgeml_converters.variants.prepare import SourceModel, prepared
from edgeml_converters.variants.request import Request
from edgeml_converters.variants.rows import Row
from edgeml_converters.variants.workspace import Workspace


def run(request: Request, space: Workspace) -> Outcome:
    """Do a conversion; everything it makes stands in the workspace's scratch folder.

    Raises:
        ModelFileError: the source is damaged or foreign.
        DataError: calibration or evaluation data that cannot be used.
        UsageError: a metric that does not exist, a gate that cannot be shown, a shape for no input.
        ConversionError: the source was changed while it was converted.
    """
    request.check()
    with prepared(request, space) as ready:
        source, maker = ready.source, ready.maker
        jobs = request.jobs if request.searches else 1
        made = at_once(ready.rows, ready.plans, maker, Budget(request.budget_s), jobs)
    if request.compiles:
        compiled = with_compiled(request, made.rows, space.scratch, space.progress)
        made = replace(made, rows=tuple(compiled))
    if request.measure:
        made = measured(made, space, request)
    rows = tuple(_gated(request, row) for row in compared(made.rows))
    _check_unchanged(source)
    machine = measured_by(rows)
    choices = [
        choose(one.name, rows, request.gates, None if one.name == machine else machine, request.objective)
        for one in request.targets
    ]
    stopped = findings.interrupted(rows) if made.interrupted else ()
    outcome = Outcome(
        request=request,
        source=source,
        rows=rows,
        choices=tuple(choices),
        data=maker,
        findings=(*maker.findings, *_judged(request, maker, rows), *stopped, *maker.executor.findings),
        machine=machine,
        interrupted=made.interrupted,
    )
    if request.measure and request.measure_on == HERE and not made.interrupted:
        return profiled(outcome, space.progress)
    return outcome


def _judged(request: Request, maker: Maker, rows: Sequence[Row]) -> tuple[Finding, ...]:
    """Draw what a person should know from the whole."""
    labels = maker.evaluation.labels if maker.evaluation is not None else None
    names = maker.evaluation.label_names if maker.evaluation is not None else ()
    accuracy = maker.reference.value if maker.reference is not None else None
    return (
        *findings.layout_without_channels(request, maker.executor.source.inputs),
        *findings.class_names_of_data(request, names, maker.executor.source.outputs),
        *findings.softmax_twice(request, maker.executor.source.parity or ()),
        *findings.nan_outputs(rows, maker.executor.source.parity or ()),
        *findings.near_chance(maker.metric, accuracy, labels),
        *findings.accuracy_unknown(request, maker.metric),
        *findings.not_calibrated(request),
        *findings.runtimes_left_out(request, rows),
        *findings.accelerators_left_out(request, rows),
        *findings.edge_tpu_stops(rows),
    )


def _gated(request: Request, row: Row) -> Row:
    broken = request.gates.broken_by(row) if row.status == "ok" else None
    return row if broken is None else row.without("gate", broken)


def _check_unchanged(source: SourceModel) -> None:
    if hash_tree(source.path) != source.sha256:
        raise ConversionError(
            f"{source.path} was changed while it was converted; restore it, keep other programs from "
            "writing to it, and convert again"
        )
