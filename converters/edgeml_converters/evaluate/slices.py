"""Accuracy by class, or by what the data are parted by: a smaller model forgets rare ones first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from edgeml.arrays import Array
from edgeml.errors import DataError
from edgeml_converters.evaluate.metrics import Metric, Tally

SLICE_SAMPLES: Final = 10
"""Fewer say nothing of a class: one sample alone would be ten points and more."""


@dataclass(frozen=True, slots=True)
class SliceValue:
    """The metric over the samples of one class or part."""

    label: int
    count: int
    value: float


@dataclass(frozen=True, slots=True)
class SliceDrop:
    """One class or part, in the source and in a variant."""

    label: int
    count: int
    reference: float
    value: float
    drop_points: float

    @property
    def counts(self) -> bool:
        """Whether it has samples enough to be judged by."""
        return self.count >= SLICE_SAMPLES


def sliced(metric: Metric | None, labels: Array | None) -> Array | None:
    """Give the class of each sample; ``None`` where labels are no classes, or the metric needs several."""
    classes = labels is not None and labels.ndim == 1 and labels.dtype.kind in "iu"
    return labels if classes and metric is not None and metric.name != "auc" else None


class SliceTallies:
    """The metric of each part under way."""

    __slots__ = ("_metric", "_parts", "_tallies")

    def __init__(self, metric: Metric | None, parts: Array | None) -> None:
        """Take the part that each sample belongs to; ``None``: nothing is counted."""
        self._metric, self._parts = metric, parts
        self._tallies: dict[int, Tally] = {}

    def add(self, place: int, outputs: Mapping[str, Array], label: Any) -> None:
        """Take the sample at ``place``."""
        if self._metric is None or self._parts is None:
            return
        part = int(self._parts[place])
        if part not in self._tallies:
            self._tallies[part] = self._metric.start()
        self._tallies[part].add(outputs, label)

    def values(self) -> tuple[SliceValue, ...]:
        """Give the metric of each part that allows it, in the order of their numbers."""
        counts = Counter([] if self._parts is None else self._parts.tolist())
        found = []
        for part, tally in sorted(self._tallies.items()):
            with suppress(DataError):  # AUC has no value where a part is of one class
                found.append(SliceValue(part, counts[part], tally.value()))
        return tuple(found)


def slice_drops(
    metric: Metric, before: Sequence[SliceValue], after: Sequence[SliceValue]
) -> tuple[SliceDrop, ...]:
    """Compare class by class; what loses most stands first."""
    known = {one.label: one for one in before}
    drops = [
        SliceDrop(
            one.label,
            one.count,
            known[one.label].value,
            one.value,
            round(metric.drop_points(known[one.label].value, one.value), 6),
        )
        for one in after
        if one.label in known
    ]
    return tuple(sorted(drops, key=lambda one: (-one.drop_points, one.label)))


def worst(drops: Sequence[SliceDrop]) -> SliceDrop | None:
    """Give the class that loses most, of those with samples enough."""
    return max((one for one in drops if one.counts), key=lambda one: one.drop_points, default=None)
