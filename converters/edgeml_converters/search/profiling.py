"""Times of the operators of what is set against each other: float32 and what quantization made of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from edgeml_converters.evaluate import operators
from edgeml_converters.evaluate.latency import Job
from edgeml_converters.search.choose import Choice
from edgeml_converters.search.detailed import pairs
from edgeml_converters.variants.request import Request
from edgeml_converters.variants.rows import Row


def profiled(
    rows: Sequence[Row], choices: Sequence[Choice], request: Request, progress: Callable[[str], None]
) -> tuple[Row, ...]:
    """Time the operators of both sides of each pair that was measured on this machine.

    Raises:
        KeyboardInterrupt: it was interrupted, and nothing is searched; a search goes without these times.
    """
    jobs = {
        row.name: Job(row.name, row.runtime, row.artifact, row.options, row.measured.threads or 1)
        for pair in pairs(rows, choices, request)
        for row in (pair.before, pair.after)
        if row.measured.latency_ms is not None and row.artifact is not None
    }
    try:
        found = operators.profile(list(jobs.values()), progress) if jobs else {}
    except KeyboardInterrupt:
        if not request.searches:
            raise
        return tuple(rows)
    return tuple(replace(row, profile=found.get(row.name)) for row in rows)
