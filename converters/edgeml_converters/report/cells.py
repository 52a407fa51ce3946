"""One variant's figures as a person reads them: the same words on the page, in the card, on the terminal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgeml.figures import milliseconds, readable_size
from edgeml_converters.compare.outputs import SQNR_OF_EQUAL_DB

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgeml_converters.evaluate.metrics import Metric
    from edgeml_converters.variants.rows import Row

NOTHING = "–"
"""What was not made or not measured."""


@dataclass(frozen=True, slots=True)
class Cells:
    """A row, rendered."""

    name: str
    accuracy: str
    drop: str
    """Points lost against the source; negative: gained."""
    p50: str
    p95: str
    p99: str
    size: str
    sqnr: str
    agreement: str
    load: str
    memory: str
    status: str


def row_cells(row: Row, metric: Metric | None) -> Cells:
    """Render a row."""
    measured, latency = row.measured, row.measured.latency_ms
    return Cells(
        name=row.name,
        accuracy=metric.show(measured.accuracy) if metric is not None else NOTHING,
        drop=NOTHING if row.drop_points is None else f"{row.drop_points:+.2f}",
        p50=NOTHING if latency is None else milliseconds(latency.p50),
        p95=NOTHING if latency is None else milliseconds(latency.p95),
        p99=NOTHING if latency is None else milliseconds(latency.p99),
        size=readable_size(row.size_bytes),
        sqnr=sqnr(measured.sqnr_db),
        agreement=NOTHING if row.agreement is None else f"{100 * row.agreement:.1f} %",
        load=NOTHING if measured.load_ms is None else milliseconds(measured.load_ms),
        memory=readable_size(measured.peak_memory_bytes),
        status=row.status,
    )


def threads_in_words(rows: Sequence[Row]) -> str:
    """Say with how many engine threads rows were measured."""
    counts = {row.name: row.measured.threads or 1 for row in rows if row.measured.latency_ms is not None}
    if len(set(counts.values())) > 1:
        each = ", ".join(f"{name} {count}" for name, count in counts.items())
        return f"engine threads as they are quickest ({each})"
    count = next(iter(counts.values()), 1)
    return "one thread" if count == 1 else f"{count} threads"


def sqnr(value_db: float | None) -> str:
    """Render an SQNR, in dB."""
    if value_db is None:
        return NOTHING
    return "exact" if value_db >= SQNR_OF_EQUAL_DB else f"{value_db:.1f}"
