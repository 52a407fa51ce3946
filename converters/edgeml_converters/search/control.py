"""Accuracy control: what makes static int8 lose no more than allowed, and costs least.

First other settings of the quantizer are tried (``candidates``): those that come closer to float on a few
calibration samples are judged, the closest first. Then the float model is equalized
(``quantize.equalization``). Either leaves everything in int8. Where that is not enough, activations are
ranked by what 8 bits take from them (``sensitivity``). The first 1, 2, 4, … of the ranking stay in float
until a variant is good enough, then the number is halved down between the last that was not and the first
that was: with N activations about 2 log₂ N variants are made, each judged on all evaluation data. Corrected
biases, where they came closer to float, are kept in what follows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from edgeml.converter import ConversionStep, QuantizerSettings
from edgeml.errors import EdgemlError
from edgeml.findings import Finding
from edgeml_converters.search.candidates import (
    Look,
    Onlooker,
    candidates,
    in_words,
)
from edgeml_converters.search.choose import lost
from edgeml_converters.search.trials import Budget, fewest_that
from edgeml_converters.search.turned_down import holds
from edgeml_converters.sensitivity.noise import Sensitivity
from edgeml_converters.sensitivity.ranking import ranked_row
from edgeml_converters.variants.make import Maker
from edgeml_converters.variants.rows import Row

SHOWN: Final = 5
"""Activations that a finding names."""
LOOK: Final = "see all with edgeml sensitivity"
REPORTED: Final = "the report has what else was tried"


@dataclass(slots=True)
class Control:
    """One row of static int8 that loses too much, and what may be done about it."""

    row: Row
    steps: Sequence[ConversionStep]
    maker: Maker
    budget: Budget
    _found: list[Row] = field(default_factory=list, init=False)
    """What was made with everything in int8, and judged."""
    _first: Budget = field(init=False)
    """What may be spent on that, so that time is left for the search for parts in float."""

    def __post_init__(self) -> None:
        self._first = self.budget.half()

    def run(self) -> Row | None:
        """Give the first variant that holds: by other settings, equalized, or with the fewest parts in float.

        Returns:
            Where none does, the one that loses least; ``None`` where nothing could be made or is better, or
            the budget is spent.
        """
        if self.budget.spent:
            return None
        onlooker = Onlooker(self.steps, self.maker)
        try:
            plain = onlooker.look(self.row.settings)
        except EdgemlError:
            return None
        base, kept = self._tuned(plain, onlooker)
        kept = kept or self._equalized(plain, base, onlooker)
        if kept is not None:
            return kept
        mixed = self._mixed(base)
        if mixed is not None and self._holds(mixed):
            return mixed
        better = [one for one in self._found if self.row.status != "ok" or lost(one) < lost(self.row)]
        best = min([*better, *([] if mixed is None else [mixed])], key=lost, default=None)
        if best is None or best is mixed or not self.budget.spent:
            return best
        return best.with_findings(self.budget.finding(best.name, "what was not tried might lose less"))

    def closer(self) -> Row | None:
        """Give a variant by other settings that loses less than the row, which loses no more than allowed."""
        if self.budget.spent:
            return None
        onlooker = Onlooker(self.steps, self.maker)
        try:
            kept = self._tuned(onlooker.look(self.row.settings), onlooker)[1]
        except EdgemlError:
            return None
        return kept if kept is not None and lost(kept) < lost(self.row) else None

    def _holds(self, row: Row) -> bool:
        return holds(row, self.maker.request.gates)

    @property
    def _late(self) -> bool:
        return self.budget.spent or self._first.spent

    def _equalized(self, plain: Look, base: QuantizerSettings, onlooker: Onlooker) -> Row | None:
        """Give the equalized variant if it holds, as it is or by other settings."""
        if self._late:
            return None
        look = self._look(replace(base, equalize=True), onlooker)
        if look is None:
            return None
        if look.lost or look.sqnr_db <= plain.sqnr_db:
            self._turn_down(look, look.lost or onlooker.told(look, plain))
            return None
        equalized = self._make(look.settings, "equalized")
        if self._holds(equalized):
            what = f"channels that differ in size were brought together; without: {self._alone}"
            return equalized.with_findings(Finding("equalized", "info", equalized.name, what, LOOK))
        if equalized.status != "ok":
            return None
        self._found.append(equalized)
        return self._tuned(look, onlooker)[1]

    def _look(self, settings: QuantizerSettings, onlooker: Onlooker) -> Look | None:
        """Look at settings; what cannot be made with them is told."""
        self._stage(settings, "looked at")
        try:
            return onlooker.look(settings)
        except EdgemlError as error:
            self.maker.tried.append(self.maker.trial(self.row, settings).without("failed", str(error)))
        return None

    def _tuned(self, start: Look, onlooker: Onlooker) -> tuple[QuantizerSettings, Row | None]:
        """Look at other settings.

        Returns:
            The settings to go on with, and the first variant that holds.
        """
        looks: list[Look] = []
        for settings in candidates(self.row.runtime, start.settings):
            look = None if self._late else self._look(settings, onlooker)
            looks += [] if look is None else [look]
        looks.sort(key=lambda one: -one.sqnr_db)
        promising = [one for one in looks if not one.lost and one.sqnr_db > start.sqnr_db]
        kept: Row | None = None
        for look in looks:
            told = onlooker.told(look, start)
            if look not in promising:
                self._turn_down(look, look.lost or told)
            elif kept is not None:
                self._turn_down(look, f"{told}; {kept.name}, which comes closer, loses no more than allowed")
            elif self._late:
                self._turn_down(look, f"{told}; no time was left to evaluate it")
            else:
                kept = self._judged(look, told, start.settings)
        return to_go_on_with(start.settings, promising, self.row, self._found), kept

    def _judged(self, look: Look, told: str, without: QuantizerSettings) -> Row | None:
        """Judge a promising candidate on all evaluation data; gives it if it holds."""
        row = self._make(look.settings, "other settings")
        if not self._holds(row):
            if row.status == "ok":
                self._found.append(row)
            return None
        what = f"{in_words(look.settings, without)}: {told}; as it was: {self._alone}"
        return row.with_findings(Finding("tuned", "info", row.name, what, REPORTED))

    def _turn_down(self, look: Look, why: str) -> None:
        self.maker.tried.append(self.maker.trial(self.row, look.settings).without("gate", why))

    def _mixed(self, base: QuantizerSettings) -> Row | None:
        try:
            ranking = ranked_row(replace(self.row, settings=base), self.steps, self.maker)
        except EdgemlError as error:
            self.maker.executor.tell(f"no accuracy control: {error}")
            return None
        self.maker.rankings[self.row.name] = ranking

        def make(count: int) -> Row:
            tensors = tuple(one.tensor for one in ranking[:count])
            doing = f"{count} of {len(ranking)} activations in float"
            return self._make(replace(base, float_tensors=tensors), doing)

        tried = fewest_that(self._holds, make, len(ranking), self.budget)
        usable = {count: row for count, row in tried.made.items() if row.status == "ok"}
        count = tried.fewest or min(usable, key=lambda one: lost(usable[one]), default=None)
        if count is None:
            return None
        kept = self._kept(usable[count], ranking[:count])
        missed = self.budget.finding(kept.name, "fewer activations in float might do")
        return kept if tried.ended else kept.with_findings(missed)

    def _make(self, settings: QuantizerSettings, doing: str) -> Row:
        self._stage(settings, doing)
        return self.maker.make(self.maker.trial(self.row, settings), self.steps)

    def _stage(self, settings: QuantizerSettings, doing: str) -> None:
        self.maker.executor.stage = f"{self.maker.trial(self.row, settings).name}, {doing}: "

    def _kept(self, row: Row, kept: Sequence[Sensitivity]) -> Row:
        named = ", ".join(f"{one.tensor} ({one.sqnr_db:.1f} dB)" for one in kept[:SHOWN])
        more = ", …" if len(kept) > SHOWN else ""
        what = (
            f"{len(kept)} activations stay in float, with what makes and takes them: {named}{more}; "
            f"all in int8: {self._alone}"
        )
        return row.with_findings(Finding("kept-in-float", "info", row.name, what, LOOK))

    @property
    def _alone(self) -> str:
        """What int8 loses as it is."""
        points = self.row.drop_points
        return self.row.told or ("it is too far off" if points is None else f"it loses {points:.2f} points")


def to_go_on_with(
    settings: QuantizerSettings, promising: Sequence[Look], plain: Row, judged: Sequence[Row]
) -> QuantizerSettings:
    """Give settings with biases corrected if that alone came closer to float, and no accuracy was lost by it.

    Biases that are corrected under another rule for ranges say nothing of these ranges.

    Args:
        settings: those that came less close.
        promising: what came closer on calibration samples.
        plain: the row without them.
        judged: what was judged on the evaluation data, which have the last word.
    """
    other = replace(settings, bias_correction=not settings.bias_correction)
    if not any(look.settings == other for look in promising):
        return settings
    worse = plain.status == "ok" and any(row.settings == other and lost(row) > lost(plain) for row in judged)
    return settings if worse else other
