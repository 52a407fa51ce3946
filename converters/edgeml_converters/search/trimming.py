"""What a variant gains by being without dead channels: held against the same variant with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from edgeml.figures import milliseconds, readable_size
from edgeml.findings import Finding
from edgeml_converters.channels.step import STEPS
from edgeml_converters.variants.rows import Row


def compared(rows: Sequence[Row]) -> tuple[Row, ...]:
    """Tell of each row without dead channels how many went, and its size and latency beside the other's."""
    plain = {row.way: row for row in rows if not row.settings.trimmed}
    told = []
    for row in rows:
        key = replace(row, settings=replace(row.settings, trimmed=False)).way
        with_them = plain.get(key) if row.settings.trimmed and row.status == "ok" else None
        told.append(row if with_them is None else _told(row, with_them))
    return tuple(told)


def _told(row: Row, plain: Row) -> Row:
    """Add the comparison; what was not measured is left out."""
    said = [] if plain.size_bytes is None else [
        f"{readable_size(row.size_bytes)} against {readable_size(plain.size_bytes)}"
    ]  # fmt: skip
    own, other = row.measured.latency_ms, plain.measured.latency_ms
    if own is not None and other is not None:
        said.append(f"{milliseconds(own.p50)} against {milliseconds(other.p50)} ms")
    names = {step.name for step in STEPS.values()}
    notes = (note for step in row.steps if step.name in names for note in step.notes)
    what = ": ".join(next(notes, "").split(": ")[:2])
    finding = Finding(
        "trimmed",
        "info",
        row.name,
        "; ".join([what, *said]),
        f"the record's step says which; {plain.name} has them all",
    )
    return row.with_findings(finding)
