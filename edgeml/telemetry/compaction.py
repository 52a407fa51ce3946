"""Making a full spool smaller: its frames, merged where they may be."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from edgeml.telemetry.merging import can_merge, merge_reports
from edgeml.telemetry.report import MOST_MODELS, Report
from edgeml.telemetry.segments import note_of, pack, report_of

SPANS_S: Final = (600, 3600)
"""Windows of a minute become ones of ten minutes, then of an hour."""
Frames = Iterator[tuple[int, bytes]]
"""Number and body, in order."""


def merged(frames: Iterable[tuple[int, bytes]], span_s: float, beyond: int) -> Frames:
    """Merge adjacent windows into ones of ``span_s``; those up to number ``beyond`` stay as they are."""
    group: list[tuple[int, bytes, Report]] = []
    models: set[tuple[str, int, str, str]] = set()
    for seq, body in frames:
        report = report_of(body)
        models |= {(one.model, one.release, one.variant, one.runtime) for one in report.models}
        fits = bool(group) and report.begins > beyond and can_merge(group[0][2], report, span_s)
        if group and not (fits and group[0][2].begins > beyond and len(models) <= MOST_MODELS):
            yield _one(group)
            group, models = [], set()
        group.append((seq, body, report))
    if group:
        yield _one(group)


def _one(group: list[tuple[int, bytes, Report]]) -> tuple[int, bytes]:
    seq, body, _ = group[-1]
    if len(group) == 1:
        return seq, body
    return seq, pack(merge_reports([report for _, _, report in group]), note_of(body))
