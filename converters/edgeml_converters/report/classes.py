"""Which classes or slices a variant loses, and which classes it takes for which others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from edgeml_converters.evaluate.confusion import ClassChange
from edgeml_converters.evaluate.metrics import Metric
from edgeml_converters.evaluate.slices import SliceDrop
from edgeml_converters.report import charts
from edgeml_converters.report.charts import Bar
from edgeml_converters.search.outcome import Outcome

SHOWN_CLASSES: Final = 12
"""Classes of a variant that the page shows, those that lose most."""
SHOWN_CHANGES: Final = 10
"""Pairs of classes that the page shows, the most frequent."""
RARE: Final = 0.5
"""A class with fewer samples than this share of the median class is rare."""


@dataclass(frozen=True, slots=True)
class PageClass:
    """A class or slice, before and after."""

    name: str
    count: int
    before: str
    after: str
    drop: str
    is_rare: bool
    bar: Bar


@dataclass(frozen=True, slots=True)
class PageClasses:
    """The classes that lose most in a variant."""

    variant: str
    kind: str
    """``class`` or ``slice``."""
    rows: tuple[PageClass, ...]
    more: int
    said: str
    """How many lose and gain, and what the rare ones lose together."""
    counts: bool
    """Whether any has samples enough to be judged by."""


@dataclass(frozen=True, slots=True)
class PageChange:
    """Samples that went from one class to another."""

    before: str
    after: str
    change: ClassChange


@dataclass(frozen=True, slots=True)
class PageChanges:
    """What a variant takes for something else than its source does."""

    variant: str
    rows: tuple[PageChange, ...]
    more: int
    said: str


def page_classes(outcome: Outcome) -> Iterator[PageClasses]:
    """Give slices and classes of each variant that the page looks into, where any changed."""
    data, metric = outcome.data.evaluation, outcome.data.metric
    if data is None or metric is None:
        return
    for row in outcome.detailed_rows():
        if data.slices is not None:
            yield from _parts(row.name, "slice", row.slices, data.slice_names, metric)
            yield from _parts(row.name, "class", row.classes, class_names(outcome), metric)
        else:
            yield from _parts(row.name, "class", row.slices, class_names(outcome), metric)


def _parts(
    variant: str, kind: str, slices: Sequence[SliceDrop], names: Sequence[str], metric: Metric
) -> Iterator[PageClasses]:
    if not any(one.drop_points for one in slices):
        return
    limit = RARE * median(one.count for one in slices)
    bars = charts.drops([one.drop_points for one in slices[:SHOWN_CLASSES]])
    shown = tuple(
        PageClass(
            _name(one.label, names),
            one.count,
            metric.show(one.reference),
            metric.show(one.value),
            f"{one.drop_points:+.2f}",
            one.count < limit,
            bar,
        )
        for one, bar in zip(slices[:SHOWN_CLASSES], bars, strict=True)
    )
    said, counts = _summary(slices, limit, metric), any(one.counts for one in slices)
    yield PageClasses(variant, kind, shown, len(slices) - len(shown), said, counts)


def page_changes(outcome: Outcome) -> Iterator[PageChanges]:
    """Give the pairs of classes that changed most, of the same variants."""
    names, reference = class_names(outcome), outcome.data.reference
    for row in outcome.detailed_rows():
        if not row.changes or reference is None:
            continue
        shown = tuple(
            PageChange(_name(one.before, names), _name(one.after, names), one)
            for one in row.changes[:SHOWN_CHANGES]
        )
        count, lost, won = (
            sum(getattr(one, name) for one in row.changes) for name in ("count", "lost", "won")
        )
        said = f"{count} of {reference.count} samples are in another class: {lost} were right before, "
        said += f"{won} are right now" + (
            f", {count - lost - won} are wrong both times" * (count > lost + won)
        )
        yield PageChanges(row.name, shown, len(row.changes) - len(shown), said)


def class_names(outcome: Outcome) -> tuple[str, ...]:
    """Give the names of the classes by label: as declared, or as the evaluation data tell them."""
    data = outcome.data.evaluation
    return outcome.request.label_names or (data.label_names if data is not None else ())


def _name(label: int, names: Sequence[str]) -> str:
    return names[label] if 0 <= label < len(names) else str(label)


def _summary(slices: Sequence[SliceDrop], limit: float, metric: Metric) -> str:
    lose, gain = (sum(sign * one.drop_points > 0 for one in slices) for sign in (1, -1))
    said = f"{lose} of {len(slices)} lose, {gain} gain"
    rare = [one for one in slices if one.count < limit]
    if not rare or not metric.is_share:
        return said
    before, after = (_mean(rare, name) for name in ("reference", "value"))
    count = sum(one.count for one in rare)
    return (
        f"{said}; the rare ({len(rare)} of {count} samples together): {metric.show(before)} before, "
        f"{metric.show(after)} after"
    )


def _mean(slices: Sequence[SliceDrop], name: str) -> float:
    total: float = sum(one.count * getattr(one, name) for one in slices)
    return total / sum(one.count for one in slices)
