"""Accuracy control: what makes static int8 lose no more than allowed, and costs least.

First the float model is equalized (``quantize.equalization``), which leaves everything in int8. Where that
is not enough, activations are ranked by what 8 bits take from them (``sensitivity``). The first 1, 2, 4, … of
the ranking stay in float until a variant is good enough, then the number is halved down between the last that
was not and the first that was: with N activations about 2 log₂ N variants are made, each judged on all
evaluation data.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from edgeml.converter import ConversionStep, QuantizerSettings
from edgeml.errors import EdgemlError
from edgeml.findings import Finding
from edgeml_converters.sensitivity.noise import Sensitivity
from edgeml_converters.sensitivity.ranking import ranked_row
from edgeml_converters.variants.make import Evaluator
from edgeml_converters.variants.rows import Row, row_name

SHOWN: Final = 5
"""Activations that a finding names."""
LOOK: Final = "see all with edgeml sensitivity"


class BudgetSpentError(Exception):
    """Ends a search; never leaves this module."""


@dataclass(frozen=True, slots=True)
class Budget:
    """The time that accuracy control may take for all rows together; a trial that was begun is ended."""

    seconds: float
    began_s: float = field(default_factory=time.monotonic)

    @property
    def spent(self) -> bool:
        """Whether no further trial may begin."""
        return time.monotonic() - self.began_s > self.seconds

    def finding(self, subject: str) -> Finding:
        """Give what tells that fewer activations in float might do."""
        said = f"the search stopped after {self.seconds:g} s: fewer activations in float might do"
        return Finding("budget-spent", "warning", subject, said, "give it more time: --budget-s")


@dataclass(frozen=True, slots=True)
class Control:
    """One row of static int8 that loses too much, and what may be done about it."""

    row: Row
    steps: Sequence[ConversionStep]
    data: Evaluator
    holds: Callable[[Row], bool]
    """Whether a variant loses no more than allowed."""
    budget: Budget

    def run(self) -> Row | None:
        """Give the equalized variant if it holds, or the one with the fewest activations in float that does.

        Returns:
            Where none does, the one that loses least; ``None`` where nothing could be made or ranked, or
            the budget is spent.
        """
        if self.budget.spent or not self._was_made():
            return None
        equalized = self._make(replace(self.row.settings, equalize=True), "equalized")
        if self.holds(equalized):
            what = f"channels that differ in size were brought together; without: {self._alone}"
            return _with(equalized, Finding("equalized", "info", equalized.name, what, LOOK))
        mixed = self._mixed()
        if mixed is None or self.holds(mixed) or equalized.status != "ok":
            return mixed
        return min(equalized, mixed, key=_loss)

    def _was_made(self) -> bool:
        """Say whether the quantizer made something, even if its results were lost."""
        calibration = self.data.calibration.spool if self.data.calibration is not None else None
        try:
            self.data.executor.make(self.steps, self.row.settings, calibration, lost=True).release()
        except EdgemlError:
            return False
        return True

    def _mixed(self) -> Row | None:
        try:
            ranking = ranked_row(self.row, self.steps, self.data)
        except EdgemlError as error:
            self.data.executor.tell(f"no accuracy control: {error}")
            return None
        self.data.rankings[self.row.name] = ranking
        made: dict[int, Row] = {}

        def enough(count: int) -> bool:
            if count not in made:
                if self.budget.spent:
                    raise BudgetSpentError
                tensors = tuple(one.tensor for one in ranking[:count])
                doing = f"{count} of {len(ranking)} activations in float"
                made[count] = self._make(replace(self.row.settings, float_tensors=tensors), doing)
            return self.holds(made[count])

        try:
            fewest = fewest_that(enough, len(ranking))
        except BudgetSpentError:
            fewest = min((count for count, row in made.items() if self.holds(row)), default=None)
        if fewest is not None:
            return self._kept(made[fewest], ranking[:fewest])
        usable = {count: row for count, row in made.items() if row.status == "ok"}
        if not usable:
            return None
        nearest = min(usable, key=lambda count: _loss(usable[count]))
        return self._kept(usable[nearest], ranking[:nearest])

    def _make(self, settings: QuantizerSettings, doing: str) -> Row:
        name = row_name(self.row.runtime, self.row.scheme, settings)
        self.data.executor.stage = f"{name}, {doing}: "
        plain = Row(name, self.row.runtime, self.row.scheme, self.row.targets, settings)
        return self.data.make(plain, self.steps)

    def _kept(self, row: Row, kept: Sequence[Sensitivity]) -> Row:
        named = ", ".join(f"{one.tensor} ({one.sqnr_db:.1f} dB)" for one in kept[:SHOWN])
        more = ", …" if len(kept) > SHOWN else ""
        what = (
            f"{len(kept)} activations stay in float, with what makes and takes them: {named}{more}; "
            f"all in int8: {self._alone}"
        )
        told = _with(row, Finding("kept-in-float", "info", row.name, what, LOOK))
        return _with(told, self.budget.finding(row.name)) if self.budget.spent else told

    @property
    def _alone(self) -> str:
        """What int8 loses as it is."""
        lost = self.row.drop_points
        return self.row.told or (f"it loses {lost:.2f} points" if lost is not None else "it is too far off")


def _with(row: Row, finding: Finding) -> Row:
    return replace(row, findings=(*row.findings, finding))


def fewest_that(enough: Callable[[int], bool], most: int) -> int | None:
    """Give the least number from 1 to ``most`` that is enough, if more never is less; ``None``: none is."""
    below, count = 0, 1
    while not enough(min(count, most)):
        if count >= most:
            return None
        below, count = count, 2 * count
    above = min(count, most)
    while above - below > 1:
        middle = (above + below) // 2
        if enough(middle):
            above = middle
        else:
            below = middle
    return above


def _loss(row: Row) -> tuple[float, float]:
    return row.drop_points or 0.0, -(row.measured.sqnr_db or 0.0)
