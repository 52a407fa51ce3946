"""Samples that a variant puts into another class than its source: the mean hides which they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgeml.arrays import Array
from edgeml_converters.evaluate.metrics import Metric, class_of


@dataclass(frozen=True, slots=True)
class ClassChange:
    """A pair of classes, as labels count them: so many samples went from one to the other."""

    before: int
    """What the source said."""
    after: int
    count: int
    lost: int
    """Of ``count``: the source was right."""
    won: int
    """Of ``count``: the variant is right. The rest was wrong and is."""


class ClassChanges:
    """Counts pairs of classes over a stream of samples; holds no more than the pairs that occur."""

    __slots__ = ("_pairs", "_predicted")

    def __init__(self, metric: Metric | None) -> None:
        """Take what reads the class out of a sample's outputs; without it nothing is counted."""
        self._predicted = metric.predicted if metric is not None else None
        self._pairs: dict[tuple[int, int], list[int]] = {}

    def add(self, before: Mapping[str, Array], after: Mapping[str, Array], label: Any) -> None:
        """Count one sample; one for which either gives no class (NaN) is left out."""
        if self._predicted is None or label is None:
            return
        old, new = self._predicted(before), self._predicted(after)
        if old is None or new is None or old == new:
            return
        wanted = class_of(label)
        counts = self._pairs.setdefault((old, new), [0, 0, 0])
        for place, holds in enumerate((True, old == wanted, new == wanted)):
            counts[place] += holds

    def result(self) -> tuple[ClassChange, ...]:
        """Give the pairs, the most frequent first; of equal ones those that lost more."""
        found = (ClassChange(*pair, *counts) for pair, counts in self._pairs.items())
        return tuple(sorted(found, key=lambda one: (-one.count, -one.lost, one.before, one.after)))
