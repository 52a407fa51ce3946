"""Accuracy by class, or by what the data are parted by: a smaller model forgets rare ones first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from edgeml.arrays import Array
from edgeml_converters.evaluate.metrics import Metric

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
    return next((one for one in drops if one.counts), None)
