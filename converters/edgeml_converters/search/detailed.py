"""Which variants are looked into: what was chosen, and of each runtime float32 and the best quantized one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from edgeml.words import FLOATS
from edgeml_converters.search.choose import Choice, loss
from edgeml_converters.search.objective import goal
from edgeml_converters.search.turned_down import lost_too_much
from edgeml_converters.variants.request import Request
from edgeml_converters.variants.rows import Row


@dataclass(frozen=True, slots=True)
class Pair:
    """A runtime's float32 variant and what quantization made of it."""

    before: Row
    after: Row


def detailed_rows(rows: Sequence[Row], choices: Sequence[Choice], request: Request) -> tuple[Row, ...]:
    """Give what was chosen and the best quantized variant of each runtime, in the table's order.

    What was compiled for an accelerator is left out: its outputs are those of its source.
    """
    best = (_best_quantized(runtime, rows, choices, request) for runtime in _runtimes(rows))
    wanted = {choice.variant for choice in choices} | {row.name for row in best if row is not None}
    return tuple(row for row in rows if row.name in wanted and row.accelerator is None)


def pairs(rows: Sequence[Row], choices: Sequence[Choice], request: Request) -> Iterator[Pair]:
    """Give float32 and the best quantized variant of each runtime that has both."""
    for runtime in _runtimes(rows):
        made = (row for row in rows if row.runtime == runtime and row.is_made)
        before = next((row for row in made if row.scheme == "float32"), None)
        after = _best_quantized(runtime, rows, choices, request)
        if before is not None and after is not None:
            yield Pair(before, after)


def _runtimes(rows: Sequence[Row]) -> Sequence[str]:
    return list(dict.fromkeys(row.runtime for row in rows))


def _best_quantized(
    runtime: str, rows: Sequence[Row], choices: Sequence[Choice], request: Request
) -> Row | None:
    """Give a runtime's quantized variant that was chosen, or else its best, even if a gate refused it."""
    own = [row for row in rows if row.runtime == runtime and row.accelerator is None]
    made = [row for row in own if row.is_made and row.scheme not in FLOATS]
    chosen = {choice.variant for choice in choices}
    return min(made, key=lambda row: (row.name not in chosen, *_rank(row, made, request)), default=None)


def _rank(row: Row, rows: Sequence[Row], request: Request) -> tuple[float, ...]:
    """Order by the objective; what loses too much comes after, and there by what is lost."""
    refused = lost_too_much(row, request.gates) is not None
    worth = loss(row)
    cost = goal(request.objective, rows).cost(row)
    return (row.status != "ok", refused, *(worth if refused else (cost, *worth)))
