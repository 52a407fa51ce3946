"""Drift of a fleet: counts of devices, kinds of machines or releases, held against what the bundle says.

Pure functions over references and rows of windows. docs/reference/drift.md says what is computed and what a
finding means.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

from edgeml.drift_nulls import drawn, drawn_distance, statistics
from edgeml.telemetry.drift import (
    FEWEST,
    LEVEL,
    Statistic,
    Verdict,
    chi_squared,
    class_counts,
    counted_classes,
    joint_distance,
    widths,
)
from edgeml.telemetry.reference import FeatureReference, Reference
from edgeml.telemetry.report import OTHER, ModelWindow
from edgeml_devices.server.telemetry.store import WindowRow

if TYPE_CHECKING:
    from numpy.typing import NDArray

By = Literal["device", "target", "release", "fleet"]
_MOST: Final = 2**40
"""Of one kind in one window: what says more was not counted, and would make sums overflow."""
_UNKNOWN: Final = "\0"
"""Classes that the reference has not, so that strangers' labels fill no memory."""
EXACT_UP_TO: Final = 64
"""Sample sizes up to this have a null each; above, eight share one for each doubling."""


@dataclass(frozen=True, slots=True, order=True)
class Group:
    """Whose windows were added up."""

    model: str
    reference: str
    """Digest."""
    name: str = ""
    """Device or target; empty for all."""
    release: int | None = None
    """``None``: all releases with this reference."""


@dataclass(frozen=True, slots=True)
class DriftFinding:
    """What is to be said of one feature (or ``classes``, or ``joint``) of one group."""

    group: Group
    feature: str
    n: int
    m: int
    """Inferences in the reference."""
    devices: int
    tests: tuple[Statistic, ...]
    q: float
    """Least false discovery rate at which this is a finding, among all that were judged in one question."""
    drifted: bool
    """Significant at the level that was asked for, and large enough to matter."""
    shift: float | None = None
    """Of the mean, in standard deviations of the reference; what lies outside the edges counts as at them."""
    psi: float | None = None
    """Population stability index: for people who know it; nothing is decided by it."""
    js: float | None = None
    """Jensen-Shannon divergence in bits, the same way."""
    counts: tuple[int, ...] = ()
    """By bin, or by class."""
    expected: tuple[int, ...] = ()
    """The reference's, the same way."""
    classes: tuple[str, ...] = ()
    """Which they are, ``other`` last: rare ones count there if a window counted them together."""

    @property
    def strongest(self) -> Statistic | None:
        """The test that speaks loudest, one whose effect matters first."""
        return Verdict(self.feature, self.n, self.tests).strongest


@dataclass(slots=True)
class _Sums:
    """A group's windows, added up."""

    counts: NDArray[np.int64]
    """Of all that is counted between edges, one after the other."""
    classes: dict[str, int] = field(default_factory=dict)
    rff_sum: NDArray[np.float64] | None = None
    rff_count: int = 0
    devices: set[str] = field(default_factory=set)


class DriftTally:
    """Adds windows up, in any order and any pieces, and judges the sums."""

    def __init__(self, references: Mapping[str, Reference], by: By = "device") -> None:
        """Begin with nothing.

        Args:
            references: by digest.
            by: what is judged by itself: each device, each kind of machine, each release, or all with one
                reference together.
        """
        self._references = references
        self._by = by
        self._groups: dict[Group, _Sums] = {}
        self.without_reference = 0
        """Windows that carried counts for a reference that is not known."""

    def add(self, rows: Iterable[WindowRow]) -> None:
        """Count windows in."""
        for row in rows:
            reference = self._references.get(row.window.reference)
            if reference is not None:
                self._add(row, reference)
            elif row.window.features or row.window.rff_count:
                self.without_reference += 1

    def findings(self, level: float = LEVEL) -> tuple[DriftFinding, ...]:
        """Judge every feature of every group together, the surest drift first.

        Args:
            level: share of false findings among all findings (Benjamini and Hochberg).
        """
        judged = [
            one
            for digest, reference in self._references.items()
            for one in _judged(reference, {g: s for g, s in self._groups.items() if g.reference == digest})
        ]
        adjusted = adjust([one.verdict.p_that_matters for one in judged]).tolist()
        found = [one.finding(q, level) for one, q in zip(judged, adjusted, strict=True)]
        return tuple(sorted(found, key=lambda one: (not one.drifted, one.q, one.group, one.feature)))

    def _add(self, row: WindowRow, reference: Reference) -> None:
        window = row.window
        key = group_of(row, self._by)
        added = flat_counts(reference, window)
        sums = self._groups.get(key)
        if sums is None:
            sums = self._groups[key] = _Sums(added)
        else:
            sums.counts += added
        sums.devices.add(row.device_id)
        if sum(window.classes.values()) < _MOST:
            for label, count in window.classes.items():
                name = label if label in reference.classes or label == OTHER else _UNKNOWN
                sums.classes[name] = sums.classes.get(name, 0) + count
        if reference.joint is not None and len(window.rff_sum) == len(reference.joint.mean):
            waves = np.asarray(window.rff_sum, np.float64)
            if window.rff_count < _MOST and np.abs(waves).max() <= 1.001 * window.rff_count:
                sums.rff_sum = waves if sums.rff_sum is None else sums.rff_sum + waves
                sums.rff_count += window.rff_count


def group_of(row: WindowRow, by: By) -> Group:
    """Say with what a window is added up."""
    name = {"device": row.device_id, "target": row.target}.get(by, "")
    release = None if by == "fleet" else row.window.release
    return Group(row.window.model, row.window.reference, name, release)


def flat_counts(reference: Reference, window: ModelWindow) -> NDArray[np.int64]:
    """Give a window's counts of all that the reference counts, zeros for what is not there."""
    counted = reference.counted()
    given = (window.features.get(one.name, ()) for one in counted)
    fitting = (
        counts if len(counts) == len(one.counts) else (0,) * len(one.counts)
        for one, counts in zip(counted, given, strict=True)
    )
    counts = np.array(list(chain.from_iterable(fitting)), np.int64)
    return counts if counts.max(initial=0) < _MOST else np.zeros_like(counts)


# --- judging


@dataclass(frozen=True, slots=True)
class _Judged:
    group: Group
    verdict: Verdict
    m: int
    devices: int
    expected: tuple[int, ...] = ()
    counts: tuple[int, ...] = ()
    classes: tuple[str, ...] = ()
    shift: float | None = None

    def finding(self, q: float, level: float) -> DriftFinding:
        psi, js = (None, None) if not self.counts else divergences(self.expected, self.counts)
        return DriftFinding(
            group=self.group,
            feature=self.verdict.name,
            n=self.verdict.n,
            m=self.m,
            devices=self.devices,
            tests=self.verdict.tests,
            q=q,
            drifted=q <= level,
            shift=self.shift,
            psi=psi,
            js=js,
            counts=self.counts,
            expected=self.expected,
            classes=self.classes,
        )


def _judged(reference: Reference, groups: Mapping[Group, _Sums]) -> Iterable[_Judged]:
    start = 0
    for one in reference.counted():
        end = start + len(one.counts)
        counted = {group: sums.counts[start:end] for group, sums in groups.items()}
        large = {group: counts for group, counts in counted.items() if counts.sum() >= FEWEST}
        start = end
        if not large:
            continue
        counts = np.stack(list(large.values()))
        for group, verdict, row, shift in zip(
            large, judge_counts(one, counts), counts.tolist(), shifts(one, counts).tolist(), strict=True
        ):
            devices = len(groups[group].devices)
            yield _Judged(group, verdict, one.total, devices, one.counts, tuple(row), shift=shift)
    for group, sums in groups.items():
        yield from _judged_together(reference, group, sums)


def _judged_together(reference: Reference, group: Group, sums: _Sums) -> Iterable[_Judged]:
    n = sum(sums.classes.values())
    if reference.classes and n >= FEWEST:
        expected, counts = class_counts(reference, sums.classes)
        verdict = Verdict("classes", n, (_class_test(reference, expected, counts),))
        m = sum(expected)
        names = tuple(counted_classes(reference, sums.classes))
        yield _Judged(group, verdict, m, len(sums.devices), tuple(expected), tuple(counts), names)
    joint = reference.joint
    if joint is None or sums.rff_sum is None or sums.rff_count < FEWEST:
        return
    distance, effect = joint_distance(joint, sums.rff_sum.tolist(), sums.rff_count)
    if math.isfinite(distance):
        test = Statistic("mmd", float(drawn_distance(joint.spectrum).p_values(distance)), effect)
        yield _Judged(group, Verdict("joint", sums.rff_count, (test,)), joint.count, len(sums.devices))


def _class_test(reference: Reference, expected: Sequence[int], counts: Sequence[int]) -> Statistic:
    whole, _ = class_counts(reference, dict(reference.classes) | {"other": 0})
    # grouping classes takes degrees of freedom away: the null of all classes errs on the safe side
    null = drawn(tuple(whole), (1.0,) * (len(whole) - 1), size_bucket(sum(counts)), discrete=True)["chi2"]
    statistic, effect = chi_squared(expected, counts)
    return Statistic("chi2", float(null.p_values(statistic)), effect)


def judge_counts(reference: FeatureReference, counts: NDArray[np.int64]) -> list[Verdict]:
    """Judge many windows of one feature, [windows, bins], each of at least one value; ``q`` is left at 1."""
    scaled, effects = statistics(reference.counts, widths(reference), counts)
    sizes = counts.sum(1)
    buckets = np.array([size_bucket(int(n)) for n in sizes])
    p_values = {test: np.ones(len(counts)) for test in scaled}
    for bucket in np.unique(buckets):
        here = buckets == bucket
        nulls = drawn(reference.counts, widths(reference), int(bucket), discrete=reference.discrete)
        for test, values in scaled.items():
            p_values[test][here] = nulls[test].p_values(values[here])
    return [
        Verdict(
            reference.name,
            int(sizes[place]),
            tuple(
                Statistic(test, float(p_values[test][place]), float(effects[test][place])) for test in scaled
            ),
        )
        for place in range(len(counts))
    ]


def size_bucket(n: int) -> int:
    """Give the sample size whose null serves for ``n``: at most 5 % away, which no null notices."""
    if n <= EXACT_UP_TO:
        return n
    return round(2 ** (round(8 * math.log2(n)) / 8))


def adjust(p_values: Sequence[float]) -> NDArray[np.float64]:
    """Adjust p-values as :func:`edgeml.telemetry.drift.benjamini_hochberg` does."""
    p = np.asarray(p_values, np.float64)
    order = np.argsort(p)[::-1]
    ranked = p[order] * len(p) / np.arange(len(p), 0, -1)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum.accumulate(np.minimum(ranked, 1.0))
    return adjusted


# --- effects, for people


def shifts(reference: FeatureReference, counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Give how far the means of windows moved, in standard deviations of the reference."""
    known = np.asarray(reference.counts, np.float64)
    below = np.cumsum(counts[:, :-1], 1) / counts.sum(1)[:, None]
    return np.asarray((np.cumsum(known[:-1]) / known.sum() - below) @ np.asarray(widths(reference)))


def divergences(reference: Sequence[int], counts: Sequence[int]) -> tuple[float, float]:
    """Give PSI and the Jensen-Shannon divergence in bits; half a value is added to each bin for PSI."""
    known, seen = np.asarray(reference, np.float64), np.asarray(counts, np.float64)
    q, p = (known + 0.5) / (known + 0.5).sum(), (seen + 0.5) / (seen + 0.5).sum()
    psi = float(np.sum((p - q) * np.log(p / q)))
    a, b = known / known.sum(), seen / seen.sum()
    middle = (a + b) / 2
    js = sum(float(np.sum(one[one > 0] * np.log2(one[one > 0] / middle[one > 0]))) / 2 for one in (a, b))
    return psi, max(0.0, js)
