"""A conversion in words and JSON: the record, the document of ``--json``, the model card."""

from __future__ import annotations

import platform
from dataclasses import asdict, fields
from importlib import metadata
from typing import Any, Final

import edgeml
from edgeml.findings import Finding
from edgeml.telemetry.reference import Reference
from edgeml.tensors import TensorSpec
from edgeml.words import ARTIFACT_FILE, FORMAT_OF_RUNTIME
from edgeml_converters.compare.outputs import OutputComparison
from edgeml_converters.coral.compilation import COMPILED_FILE
from edgeml_converters.evaluate.samples import Samples
from edgeml_converters.evaluate.slices import SliceDrop
from edgeml_converters.report.cells import row_cells, threads_in_words
from edgeml_converters.report.operators import operators_document
from edgeml_converters.report.plain import finite, plain
from edgeml_converters.report.rankings import ranking_document
from edgeml_converters.report.tried import trial_document, trials
from edgeml_converters.search.outcome import Outcome
from edgeml_converters.variants.rows import Row, StepTrace

SCHEMA: Final = 1
TOOLS: Final = (
    "edgeml-core", "edgeml-converters", "edgeml-runtimes", "numpy", "onnx", "onnxruntime", "openvino", "nncf",
    "ai-edge-litert", "ai-edge-quantizer", "onnxslim",
)  # fmt: skip
"""Distributions whose versions the record names, where they are installed."""


def variant_file(row: Row) -> str:
    """Give the path in the bundle of the file that the runtime loads."""
    if row.accelerator is not None:
        return f"variants/{row.name}/{COMPILED_FILE}"
    return f"variants/{row.name}/{ARTIFACT_FILE[FORMAT_OF_RUNTIME[row.runtime]]}"


def document(outcome: Outcome, bundle: str | None, report: str | None) -> dict[str, Any]:
    """Give what ``edgeml convert --json`` prints; docs/reference/json.md describes it."""
    return {
        "schema": SCHEMA,
        "source": source_document(outcome),
        "variants": [row_document(row) for row in outcome.rows],
        "targets": [asdict(choice) for choice in outcome.choices],
        "findings": [asdict(finding) for finding in all_findings(outcome)],
        "bundle": bundle,
        "report": report,
    }


def source_document(outcome: Outcome) -> dict[str, Any]:
    """Describe the source model."""
    source = outcome.source
    return {
        "path": str(source.path),
        "format": source.state.format,
        "scheme": source.state.scheme,
        "sha256": source.sha256,
        "size_bytes": source.size_bytes,
        "inputs": [_spec(spec) for spec in source.artifact.inputs],
        "outputs": [_spec(spec) for spec in source.artifact.outputs],
    }


def row_document(row: Row) -> dict[str, Any]:
    """Describe one variant; what was not made or not measured is ``null``."""
    measured = row.measured
    return {
        "name": row.name,
        "runtime": row.runtime,
        "scheme": row.scheme,
        "targets": list(row.targets),
        "file": variant_file(row) if row.status == "ok" else None,
        "accelerator": row.accelerator,
        "mapping": dict(row.mapping) or None,
        "size_bytes": row.size_bytes,
        "metric": measured.metric,
        "accuracy": measured.accuracy,
        "float_accuracy": measured.float_accuracy,
        "drop_points": finite(row.drop_points),
        "sqnr_db": measured.sqnr_db,
        "latency_ms": asdict(measured.latency_ms) if measured.latency_ms is not None else None,
        "load_ms": measured.load_ms,
        "peak_memory_bytes": measured.peak_memory_bytes,
        "measured_on": measured.machine,
        "status": row.status,
        "reason": row.reason or None,
    }


def record(outcome: Outcome) -> dict[str, Any]:
    """Give ``record.json``: what was done, with what, to what, and what came of it."""
    return {
        "schema": SCHEMA,
        "edgeml": edgeml.__version__,
        "source": {**source_document(outcome), "path": outcome.source.path.name},
        "tools": tool_versions(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "machine": outcome.machine,
        "options": _options(outcome),
        "data": [_data(one) for one in outcome.data.samples_read],
        "reference": _reference(outcome),
        "variants": [
            {
                **row_document(row),
                "sha256": row.sha256,
                "settings": plain(row.settings),
                "options": dict(row.options),
                "runtime_version": row.runtime_version,
                "slices": [slice_document(one) for one in row.slices],
                "operator_times": operators_document(row),
                "classes": [slice_document(one) for one in row.classes],
                "changes": [asdict(one) for one in row.changes],
                "outputs_compared": [comparison_document(one) for one in row.outputs_compared],
                "steps": [step_document(step) for step in row.steps],
                "findings": [asdict(finding) for finding in row.findings],
            }
            for row in outcome.rows
        ],
        "tried": [trial_document(one) for one in trials(outcome)],
        "rankings": {
            name: ranking_document(activations) for name, activations in outcome.data.rankings.items()
        },
        "targets": [asdict(choice) for choice in outcome.choices],
        "findings": [asdict(finding) for finding in outcome.findings],
    }


def _options(outcome: Outcome) -> dict[str, Any]:
    """Give every field of the request but the source, which stands beside; what it left open, as decided."""
    request = outcome.request
    given = {one.name: getattr(request, one.name) for one in fields(request) if one.name != "source"}
    decided = {
        "targets": [target.name for target in request.targets],
        "schemes": request.wanted_schemes,
        "metric": outcome.data.metric.name if outcome.data.metric else None,
    }
    return {name: plain(value) for name, value in (given | decided).items()}


def slice_document(drop: SliceDrop) -> dict[str, Any]:
    """Describe what a class or slice loses."""
    return {**asdict(drop), "drop_points": finite(drop.drop_points)}


def step_document(step: StepTrace) -> dict[str, Any]:
    """Describe one step."""
    return {
        "name": step.name,
        "source": step.source,
        "target": step.target,
        "seconds": round(step.seconds, 3),
        "cached": step.cached,
        "outputs": [comparison_document(one) for one in step.outputs],
        "notes": list(step.notes),
        "versions": dict(step.versions),
        "ranges": {name: list(pair) for name, pair in step.ranges.items()},
    }


def comparison_document(one: OutputComparison) -> dict[str, Any]:
    """Describe how far one output is from the reference's."""
    return {
        "output": one.name,
        "samples": one.samples,
        "max_abs": finite(one.max_abs),
        "cosine": one.cosine,
        "cosine_min": one.cosine_min,
        "sqnr_db": one.sqnr_db,
        "top1_agreement": one.top1_agreement,
    }


def all_findings(outcome: Outcome) -> tuple[Finding, ...]:
    """Give every finding once, those about the data first."""
    rows = (finding for row in outcome.rows for finding in row.findings)
    return tuple(dict.fromkeys((*outcome.findings, *rows)))


def tool_versions() -> dict[str, str]:
    """Give the versions of the tools that are installed."""
    found = {}
    for name in TOOLS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def model_card(outcome: Outcome, name: str, release: int, drift: Reference | None) -> str:
    """Give the bundle's README.md."""
    lines = [f"# {name}, release {release}", ""]
    made = f"Made by edgeml {edgeml.__version__} from `{outcome.source.path.name}`"
    lines += [f"{made} ({outcome.source.state}, sha256 `{outcome.source.sha256[:16]}…`).", ""]
    lines += ["## Signature", ""]
    lines += [f"- input `{spec}`" for spec in outcome.source.artifact.inputs]
    lines += [f"- output `{spec}`" for spec in outcome.source.artifact.outputs]
    lines += ["", "## Chosen", ""]
    lines += [f"- **{choice.target}**: {choice.reason}" for choice in outcome.choices]
    lines += ["", "## Variants", ""]
    lines += [
        "| variant | targets | accuracy | drop, points | p50, ms | size | SQNR, dB | status |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [_card_row(row, outcome) for row in outcome.rows]
    if outcome.machine and any(row.measured.latency_ms for row in outcome.rows):
        threads = threads_in_words(outcome.rows)
        lines += ["", f"Latency: one inference, batch 1, {threads}, on a machine of class {outcome.machine}."]
    lines += ["", "## Data", ""]
    read = outcome.data.samples_read
    lines += [f"- {one.role}: {one.count} samples, sha256 `{one.sha256[:16]}…`" for one in read]
    lines += [] if read else ["- none were given"]
    lines += [] if drift is None else [f"- drift is told by {drift}"]
    findings = all_findings(outcome)
    if findings:
        lines += ["", "## Findings", ""]
        lines += [
            f"- {one.severity} `{one.code}`, {one.subject}: {one.message}. {one.remedy}" for one in findings
        ]
    return "\n".join([*lines, "", "`record.json` holds the steps, tool versions and options.", ""])


def _card_row(row: Row, outcome: Outcome) -> str:
    shown = row_cells(row, outcome.data.metric)
    cells = [
        shown.name,
        ", ".join(row.targets),
        shown.accuracy,
        shown.drop,
        shown.p50,
        shown.size,
        shown.sqnr,
        row.status if not row.reason else f"{row.status}: {first_line(row.told)}",
    ]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def first_line(text: str) -> str:
    """Give the first line of a message."""
    return text.strip().splitlines()[0] if text.strip() else ""


def _data(samples: Samples) -> dict[str, Any]:
    return {
        "role": samples.role,
        "source": samples.source,
        "count": samples.count,
        "sha256": samples.sha256,
        "inputs": [asdict(one) for one in samples.summary.inputs],
    }


def _reference(outcome: Outcome) -> dict[str, Any] | None:
    reference = outcome.data.reference
    if reference is None:
        return None
    return {"by": outcome.data.reference_by, "value": reference.value, "samples": reference.count}


def _spec(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "shape": list(spec.shape), "dtype": spec.dtype}
