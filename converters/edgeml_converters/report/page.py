"""Fills the report's template."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any, Final

import edgeml
from edgeml_converters.report import charts
from edgeml_converters.report.record import all_findings, record, sqnr
from edgeml_converters.variants.conversion import Outcome
from edgeml_converters.variants.rows import Row, StepTrace, kilobytes, lacking

TEMPLATE: Final = "report.html.jinja"


def render(outcome: Outcome, bundle: str) -> str:
    """Give the report as one HTML document; whatever stems from files is escaped."""
    from markupsafe import Markup

    steps = _steps(outcome)
    pictures = (
        ("Accuracy against latency", charts.accuracy_against_latency(outcome)),
        ("Parity of each step", charts.parity(steps)),
        ("Calibrated ranges", charts.calibration_ranges(steps)),
    )
    return str(
        _template().render(
            title=Path(bundle).stem,
            bundle=bundle,
            version=edgeml.__version__,
            source=outcome.source,
            specs=(*outcome.source.artifact.inputs, *outcome.source.artifact.outputs),
            choices=outcome.choices,
            rows=[_row(row, outcome) for row in outcome.rows if row.status in {"ok", "gate"}],
            lacking=[one for one in lacking(outcome.rows) if one.status != "gate"],
            metric=outcome.data.metric,
            reference=outcome.data.reference,
            reference_by=outcome.data.reference_by,
            machine=outcome.machine,
            measured=any(row.measured.latency_ms for row in outcome.rows),
            # matplotlib escapes the names that it draws
            pictures=[(title, Markup(svg)) for title, svg in pictures if svg],  # noqa: S704 - our own drawing
            findings=all_findings(outcome),
            steps=steps,
            data=[one for one in (outcome.data.calibration, outcome.data.evaluation) if one],
            record=json.dumps(record(outcome), indent=1),
        )
    )


@cache
def _template() -> Any:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(TEMPLATE)


def _steps(outcome: Outcome) -> tuple[StepTrace, ...]:
    """Give every step that was done, once."""
    found: list[StepTrace] = []
    for row in outcome.rows:
        found += [step for step in row.steps if not any(step is known for known in found)]
    return tuple(found)


def _row(row: Row, outcome: Outcome) -> dict[str, Any]:
    measured, metric = row.measured, outcome.data.metric
    latency = measured.latency_ms
    return {
        "name": row.name,
        "status": row.status,
        "reason": row.reason,
        "targets": ", ".join(row.targets),
        "chosen": any(choice.variant == row.name for choice in outcome.choices),
        "accuracy": metric.show(measured.accuracy) if metric is not None else "–",
        "drop": "–" if row.drop_points is None else f"{row.drop_points:+.2f}",
        "sqnr": sqnr(measured.sqnr_db),
        "agreement": "–" if row.agreement is None else f"{100 * row.agreement:.1f}",
        "p50": "–" if latency is None else f"{latency.p50:.3g}",
        "p95": "–" if latency is None else f"{latency.p95:.3g}",
        "p99": "–" if latency is None else f"{latency.p99:.3g}",
        "load": "–" if measured.load_ms is None else f"{measured.load_ms:.1f}",
        "memory": "–" if measured.peak_memory_bytes is None else f"{measured.peak_memory_bytes / 1e6:.0f}",
        "size": kilobytes(row.size_bytes),
    }
