"""Which variants the report looks into: what was chosen, and of each runtime the best quantized one."""

from __future__ import annotations

from collections.abc import Sequence

from edgeml_converters.variants.choose import FLOATS, loss
from edgeml_converters.variants.conversion import Outcome
from edgeml_converters.variants.objective import goal
from edgeml_converters.variants.rows import Row
from edgeml_converters.variants.turned_down import lost_too_much


def detailed_rows(outcome: Outcome) -> tuple[Row, ...]:
    """Give them in the table's order; what was compiled of one is left out: its outputs are the same."""
    chosen = {choice.variant for choice in outcome.choices}
    best = [best_quantized(outcome, runtime) for runtime in {row.runtime: None for row in outcome.rows}]
    wanted = chosen | {row.name for row in best if row is not None}
    return tuple(row for row in outcome.rows if row.name in wanted and row.accelerator is None)


def best_quantized(outcome: Outcome, runtime: str) -> Row | None:
    """Give a runtime's quantized variant that was chosen, or else its best, even if a gate refused it."""
    rows = [row for row in outcome.rows if row.runtime == runtime and row.accelerator is None]
    made = [row for row in rows if row.status in {"ok", "gate"} and row.scheme not in FLOATS]
    chosen = {choice.variant for choice in outcome.choices}
    return min(made, key=lambda row: (row.name not in chosen, *_rank(row, made, outcome)), default=None)


def _rank(row: Row, rows: Sequence[Row], outcome: Outcome) -> tuple[float, ...]:
    request = outcome.request
    compared = goal(request.objective, rows)
    refused = lost_too_much(row, request.gates) is not None
    worth = loss(row)
    # of those that lose too much the one that loses least, of the others the best by the objective
    return (row.status != "ok", refused, *(worth if refused else (compared.cost(row), *worth)))
