"""Fills the report's template."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import edgeml
from edgeml.converter import QuantizerSettings
from edgeml.data import DataDeclaration
from edgeml.figures import readable_size
from edgeml_converters.coral import picture
from edgeml_converters.coral.check import Check, check_file
from edgeml_converters.coral.picture import Picture
from edgeml_converters.evaluate.samples import Samples
from edgeml_converters.report import charts
from edgeml_converters.report.cells import Cells, row_cells, threads_in_words
from edgeml_converters.report.classes import page_changes, page_classes
from edgeml_converters.report.operators import page_operators
from edgeml_converters.report.rankings import page_rankings
from edgeml_converters.report.record import all_findings, record, tool_versions
from edgeml_converters.report.templates import template
from edgeml_converters.report.tried import Fate, Trial, trials
from edgeml_converters.search.outcome import Outcome
from edgeml_converters.variants.gates import DEFAULT_MAX_DROP
from edgeml_converters.variants.rows import Row, StepTrace, lacking

TEMPLATE: Final = "report.html.jinja"
TONES: Final[Mapping[Fate, str]] = {
    "chosen": "ok",
    "kept": "",
    "gate": "gate",
    "unused": "gate",
    "failed": "failed",
    "unavailable": "unavailable",
}
"""Style of a verdict."""


@dataclass(frozen=True, slots=True)
class PageRow:
    """A row of the table of variants."""

    number: int
    cells: Cells
    chosen_for: tuple[str, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class PageStep:
    """A step with what tells it from others of its name."""

    title: str
    trace: StepTrace
    variants: tuple[str, ...]
    """Those that came this way."""
    quantizes: bool


@dataclass(frozen=True, slots=True)
class PageData:
    """Calibration or evaluation data that were given, read or not."""

    role: str
    source: str
    read: Samples | None


@dataclass(frozen=True, slots=True)
class PageEdgeTpu:
    """What the Edge TPU's compiler will make of a variant."""

    variant: str
    check: Check
    graph: Picture | None


def render(outcome: Outcome, bundle: str) -> str:
    """Give the report as one HTML document; whatever stems from files is escaped."""
    steps = page_steps(outcome.rows)
    shown = [row for row in outcome.rows if row.is_made]
    metric = outcome.data.metric
    worst = [
        (one.title, min(output.sqnr_db for output in one.trace.outputs), one.quantizes)
        for one in steps
        if one.trace.outputs
    ]
    return str(
        template(TEMPLATE).render(
            title=Path(bundle).stem,
            bundle=bundle,
            version=edgeml.__version__,
            date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            source=outcome.source,
            specs=(*outcome.source.artifact.inputs, *outcome.source.artifact.outputs),
            choices=outcome.choices,
            rows=_rows(shown, outcome),
            lacking=[one for one in lacking(outcome.rows) if one.status != "gate"],
            metric=metric,
            reference=outcome.data.reference,
            reference_by=outcome.data.reference_by,
            machine=outcome.machine,
            measured=any(row.measured.latency_ms for row in outcome.rows),
            threads=threads_in_words(outcome.rows),
            scatters=charts.scatters(shown, metric, frozenset(choice.variant for choice in outcome.choices)),
            runtimes=[(charts.RUNTIME_COLOUR[name], name) for name in sorted({row.runtime for row in shown})],
            parity=charts.parity(worst),
            ranges=[
                (one, charts.ranges(one.trace.ranges), len(one.trace.ranges) - charts.SHOWN_RANGES)
                for one in steps
                if one.trace.ranges
            ],
            trials=[(one, row_cells(one.row, metric)) for one in trials(outcome) if _was_tried(one)],
            tones=TONES,
            operators=list(page_operators(outcome)),
            rankings=list(page_rankings(outcome)),
            has_int8=any(row.scheme == "int8_static" for row in shown),
            classes=list(page_classes(outcome)),
            changes=list(page_changes(outcome)),
            parted=outcome.data.evaluation is not None and outcome.data.evaluation.slices is not None,
            findings=all_findings(outcome),
            has_bundle=any(row.status == "ok" for row in outcome.rows),
            edge_tpu=_edge_tpu(outcome),
            compiled=[row for row in shown if row.accelerator is not None],
            steps=steps,
            data=_data(outcome),
            settings=list(_settings(outcome)),
            tools=tool_versions(),
            python=platform.python_version(),
            system=f"{platform.system()} {platform.machine()}",
            record=record(outcome),
        )
    )


def _was_tried(trial: Trial) -> bool:
    """Leave out what could not even be tried: the page names it elsewhere."""
    return trial.fate != "unavailable"


def page_steps(rows: Sequence[Row]) -> tuple[PageStep, ...]:
    """Give every step that was done, once, each under a title of its own."""
    found: list[tuple[StepTrace, Row, list[str]]] = []
    for row in rows:
        for step in row.steps:
            known = next((names for trace, _, names in found if trace is step), None)
            if known is None:
                found.append((step, row, [row.name]))
            else:
                known.append(row.name)
    names = [step.name for step, _, _ in found]
    titles = []
    for step, row, _ in found:
        profile = _profile(row.settings) if _quantizes(step) and names.count(step.name) > 1 else ""
        titles.append(f"{step.name} ({profile})" if profile else step.name)
    return tuple(
        # where the settings do not tell either, the variants do
        PageStep(
            f"{title}, for {', '.join(names)}" if titles.count(title) > 1 else title,
            step,
            tuple(names),
            _quantizes(step),
        )
        for title, (step, _, names) in zip(titles, found, strict=True)
    )


def _quantizes(step: StepTrace) -> bool:
    return step.source.partition("/")[2] != step.target.partition("/")[2]


def _profile(settings: QuantizerSettings) -> str:
    return f"{'7-bit' if settings.reduce_range else '8-bit'} weights"


def _rows(rows: Sequence[Row], outcome: Outcome) -> list[PageRow]:
    return [
        PageRow(
            number,
            row_cells(row, outcome.data.metric),
            outcome.chosen_for(row),
            row.reason,
        )
        for number, row in enumerate(rows, 1)
    ]


def _edge_tpu(outcome: Outcome) -> list[PageEdgeTpu]:
    """Look at the variants that could be compiled, where a target has an Edge TPU."""
    found = []
    for row in outcome.rows:
        is_source = row.edge_tpu and row.accelerator is None
        if is_source and row.is_made and row.artifact is not None:
            check = check_file(row.artifact)
            found.append(PageEdgeTpu(row.name, check, picture.picture(check)))
    return found


def _data(outcome: Outcome) -> list[PageData]:
    """Give what was declared, also where no variant got so far that it was read."""
    given: tuple[tuple[str, DataDeclaration | None, Samples | None], ...] = (
        ("calibration", outcome.request.calibration, outcome.data.calibration),
        ("evaluation", outcome.request.evaluation, outcome.data.evaluation),
    )
    return [
        PageData(role, read.source if read is not None else declared.source, read)
        for role, declared, read in given
        if declared is not None
    ]


def _settings(outcome: Outcome) -> Iterator[tuple[str, str]]:
    """Give what was asked for, in words."""
    request, gates, post = outcome.request, outcome.request.gates, outcome.request.postprocess
    yield "targets", ", ".join(one.name for one in request.targets)
    yield "schemes", ", ".join(request.wanted_schemes)
    yield "pre-processing", _changed(request.preprocess) or "none: samples are fed as they are"
    yield "post-processing", _changed(post) or "none: outputs are given as they are"
    metric = outcome.data.metric
    if metric is None:
        yield "metric", "none: accuracy was not evaluated"
    else:
        better = "higher" if metric.higher_is_better else "lower"
        judged = f"output {post.output}" if post.output else "the only or first output"
        yield "metric", f"{metric.name} ({better} is better) on {judged}, label offset {post.label_offset}"
    held = []
    if gates.max_drop is not None:
        held.append(f"drop ≤ {gates.max_drop:g} points")
    if gates.max_latency_ms is not None:
        held.append(f"p50 ≤ {gates.max_latency_ms:g} ms")
    if gates.max_slice_drop is not None:
        held.append(f"worst class ≤ {gates.max_slice_drop:g} points")
    if gates.max_size_bytes is not None:
        held.append(f"size ≤ {readable_size(gates.max_size_bytes)}")
    text = ", ".join(held) or "none"
    if gates.max_drop is None:
        text += f"; what loses more than {DEFAULT_MAX_DROP:g} point is chosen only if nothing loses less"
    yield "gates", text
    ports = ", ".join({row.settings.io_dtype: None for row in outcome.rows if row.scheme == "int8_static"})
    yield (
        "quantizer",
        f"calibration method {request.method}, static int8 with {ports} input and output",
    )
    if request.input_shapes:
        shapes = (f"{name or 'input'} {list(shape)}" for name, shape in request.input_shapes.items())
        yield "input shapes", ", ".join(shapes)
    if request.trust_code:
        yield "trusted", "the file's own code was run"


def _changed(declared: Any) -> str:
    """Give the fields of a frozen dataclass that differ from their defaults."""
    default = type(declared)()
    changed: Mapping[str, Any] = {
        one.name: getattr(declared, one.name)
        for one in fields(declared)
        if getattr(declared, one.name) != getattr(default, one.name)
    }
    return ", ".join(f"{name} {_value(value)}" for name, value in changed.items())


def _value(value: Any) -> str:
    if isinstance(value, tuple):
        return (
            "×".join(map(_value, value)) if all(isinstance(one, int) for one in value) else str(list(value))
        )
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
