"""Samples that a variant puts into another class than its source: the mean hides which they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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

    def __init__(self, predicted: Callable[[Mapping[str, Array]], int | None]) -> None:
        """Take what reads the class out of a sample's outputs."""
        self._predicted = predicted
        self._pairs: dict[tuple[int, int], list[int]] = {}

    def add(self, before: Mapping[str, Array], after: Mapping[str, Array], label: Any) -> None:
        """Count one sample; one for which either gives no class (NaN) is left out."""
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


def class_changes(metric: Metric | None, labels: Array | None) -> ClassChanges | None:
    """Give what counts, where the metric judges classes."""
    if metric is None or metric.predicted is None or labels is None:
        return None
    return ClassChanges(metric.predicted)
