"""Times of the operators of what is set against each other: float32 and what quantization made of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from edgeml_converters.evaluate import operators
from edgeml_converters.evaluate.latency import Job
from edgeml_converters.search import findings
from edgeml_converters.search.outcome import Outcome


def profiled(outcome: Outcome, progress: Callable[[str], None]) -> Outcome:
    """Time the operators of both sides of each pair that was measured on this machine.

    Raises:
        KeyboardInterrupt: it was interrupted, and nothing is searched; a search goes without these times.
    """
    jobs = {
        row.name: Job(row.name, row.runtime, row.artifact, row.options, row.measured.threads or 1)
        for pair in outcome.pairs()
        for row in (pair.before, pair.after)
        if row.measured.latency_ms is not None and row.artifact is not None
    }
    try:
        found = operators.profile(list(jobs.values()), progress) if jobs else {}
    except KeyboardInterrupt:
        if not outcome.request.searches:
            raise
        stopped = findings.interrupted(outcome.rows)
        return replace(outcome, interrupted=True, findings=(*outcome.findings, *stopped))
    return replace(outcome, rows=tuple(replace(row, profile=found.get(row.name)) for row in outcome.rows))
