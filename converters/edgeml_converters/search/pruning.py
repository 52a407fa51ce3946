"""Pruned variants: as many weights at 0 as static int8 bears, where that makes its file smaller.

With 10, 20, 40, 80 % of the weights at 0 variants are made until one loses more than allowed, then the share
is halved down between the last that held and the first that did not. Of those that hold and whose file is
within 5 % of the smallest, the one that loses least is taken. Where its file is no smaller than without zeros
there is no such variant, and a finding says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from edgeml.converter import ConversionStep
from edgeml.figures import readable_size
from edgeml.findings import Finding
from edgeml_converters.quantize.sparsity import PRUNED
from edgeml_converters.search.choose import loss
from edgeml_converters.search.trials import Budget, fewest_that
from edgeml_converters.search.turned_down import holds, lost_too_much
from edgeml_converters.variants.make import Maker
from edgeml_converters.variants.rows import Row

Severity = Literal["info", "warning"]
EQUAL_SIZE: Final = 1.05
"""A file that is smaller by less does not pay for what more zeros lose."""
SHARES: Final = tuple(place / 10 for place in range(1, 10))
_REMEDY: Final = "a model trained towards sparse weights bears more of them at 0; edgeml does not train"


@dataclass(frozen=True, slots=True)
class Pruning:
    """One row of static int8 that loses no more than allowed, and what zeros do for its size."""

    row: Row
    steps: Sequence[ConversionStep]
    maker: Maker
    budget: Budget

    def run(self) -> tuple[Row, ...]:
        """Give the row, and behind it the pruned variant; without one, the row tells why.

        A row that cannot be pruned, or loses too much as it is, is given as it is.
        """
        if (self.row.runtime, self.row.scheme) != PRUNED or self.row.edge_tpu or not self._holds(self.row):
            return (self.row,)
        tried = fewest_that(lambda row: not self._holds(row), self._make, len(SHARES), self.budget)
        *before, last = self._judged([tried.made[count] for count in sorted(tried.made)])
        missed = self.budget.finding(last.name, "more weights at 0 might make its file smaller")
        return (*before, last if tried.ended else last.with_findings(missed))

    def _holds(self, row: Row) -> bool:
        return holds(row, self.maker.request.gates)

    def _make(self, count: int) -> Row:
        row = self.maker.trial(self.row, replace(self.row.settings, sparsity=SHARES[count - 1]))
        self.maker.executor.stage = f"{row.name}: "
        return self.maker.make(row, self.steps)

    def _judged(self, made: Sequence[Row]) -> tuple[Row, ...]:
        best = _best([row for row in made if self._holds(row)])
        first_lost = next((row for row in made if not self._holds(row)), None)
        lost = f"; {self._why(first_lost)}" if first_lost is not None else ""
        if best is None:
            return (_no_smaller(self.row, lost.removeprefix("; ")) if lost else self.row,)
        text = compared(best, self.row) + lost
        if is_smaller(best, self.row):
            return self.row, _smaller(best, text)
        return (_no_smaller(self.row, text),)

    def _why(self, row: Row) -> str:
        lost = row.told if row.status != "ok" else lost_too_much(row, self.maker.request.gates)
        return f"with {_share(row)} at 0: {lost}"


def is_smaller(pruned: Row, plain: Row) -> bool:
    """Say whether zeros made a file smaller."""
    return (pruned.size_bytes or 0) < (plain.size_bytes or 0)


def compared(pruned: Row, plain: Row) -> str:
    """Say what zeros did for the size."""
    sizes = (f"{readable_size(row.size_bytes or 0)}" for row in (pruned, plain))
    how = "makes the file smaller" if is_smaller(pruned, plain) else "makes the file no smaller"
    return f"{_share(pruned)} of the convolutions' weights at 0 {how}: {' against '.join(sizes)}"


def with_comparison(row: Row, plain: Row | None) -> Row:
    """Tell of a pruned row that was asked for what it gained."""
    if row.status != "ok" or plain is None or plain.status != "ok":
        return row
    if is_smaller(row, plain):
        return _smaller(row, compared(row, plain))
    return _no_smaller(row, compared(row, plain), "warning")


def _share(row: Row) -> str:
    return f"{100 * row.settings.sparsity:.3g} %"


def _best(rows: Sequence[Row]) -> Row | None:
    limit = EQUAL_SIZE * min((row.size_bytes or 0 for row in rows), default=0)
    return min((row for row in rows if (row.size_bytes or 0) <= limit), key=loss, default=None)


def _smaller(row: Row, said: str) -> Row:
    return row.with_findings(Finding("pruned", "info", row.name, said, _REMEDY))


def _no_smaller(row: Row, said: str, severity: Severity = "info") -> Row:
    return row.with_findings(Finding("not-pruned", severity, row.name, said, _REMEDY))
