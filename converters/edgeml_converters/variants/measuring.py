"""Latency, load time and memory of the rows that were made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from edgeml.errors import MeasureError
from edgeml.findings import Finding
from edgeml.measure import EMULATED
from edgeml.targets import host
from edgeml_converters.evaluate import latency
from edgeml_converters.variants import findings
from edgeml_converters.variants.rows import Row
from edgeml_converters.variants.workspace import Progress


def measured_by(rows: Sequence[Row]) -> str:
    """Name the class of the machine that measured; of this one if none did."""
    return next((row.measured.machine.split()[0] for row in rows if row.measured.machine), host().name)


def measured(rows: Sequence[Row], progress: Progress, url: str) -> list[Row]:
    """Measure each usable row in a fresh process, on the machine that ``url`` names."""
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
