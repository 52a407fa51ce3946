"""What a device's counts say against the reference: p-values at the sample size that there is, offline.

Of a feature three statistics are taken, of ``n`` counted values against the ``m`` of the reference, all from
the counts, with ``F`` the share below an edge and ``s = sqrt(1/n + 1/m)``:

    w1      sum over edges of |F_window - F_reference| * width / std / s     location (Wasserstein-1)
    ks      largest |F_window - F_reference| / s                             location (Kolmogorov-Smirnov)
    chi2    sum over bins of (c/n - r/m)^2 / ((c + r) / (n + m)) / s^2       shape (two-sample chi-squared)

Critical values for them travel in the reference (``Null``), so that a device needs neither numpy nor server.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from typing import Final, Literal

from edgeml.telemetry.reference import LEVELS, FeatureReference, JointReference, Null, Reference
from edgeml.telemetry.report import OTHER, ModelWindow

Counted = Literal["w1", "ks", "chi2"]
Test = Literal[Counted, "mmd"]
FEWEST: Final = 30
"""Values below which nothing is judged."""
LEVEL: Final = 0.01
"""Share of false findings among all findings (Benjamini and Hochberg's false discovery rate)."""
FLOORS: Final[Mapping[Test, float]] = {"w1": 0.05, "ks": 0.03, "chi2": 0.05, "mmd": 0.01}
"""Effects below these are no finding, however sure: see :class:`Statistic`."""


@dataclass(frozen=True, slots=True)
class Statistic:
    """One statistic."""

    test: Test
    p: float
    """How often data that did not drift would give as much, the reference's own error counted."""
    effect: float
    """How much it is, whatever the sample size. w1: standard deviations of the reference; ks: share of
    values; chi2: Cohen's w, what exceeds chance; mmd: standard deviations of a single row's cosines and
    sines, root mean square, what exceeds chance."""

    @property
    def matters(self) -> bool:
        """Whether the effect is large enough for a finding."""
        return self.effect >= FLOORS[self.test]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is to be said of one feature, of the classes, or of all features together."""

    name: str
    """Of the feature; ``classes``; ``joint``."""
    n: int
    tests: tuple[Statistic, ...] = ()
    """Empty: fewer than ``FEWEST`` values."""
    q: float = 1.0
    """Least false discovery rate at which this is a finding, among all that were judged with it."""

    @property
    def p(self) -> float:
        """The least of the tests' p-values, times their number (Bonferroni)."""
        return min(1.0, len(self.tests) * min((one.p for one in self.tests), default=1.0))

    @property
    def p_that_matters(self) -> float:
        """The same of the tests whose effect is large enough, 1 if there are none."""
        return min(1.0, len(self.tests) * min((one.p for one in self.tests if one.matters), default=1.0))

    @property
    def strongest(self) -> Statistic | None:
        """The test that speaks loudest, one whose effect matters first."""
        return min(self.tests, key=lambda one: (not one.matters, one.p), default=None)

    def drifted(self, level: float = LEVEL) -> bool:
        """Whether it is a finding: significant, and large enough to matter."""
        return self.q <= level


@dataclass(frozen=True, slots=True)
class Judged:
    """A window against its reference."""

    verdicts: tuple[Verdict, ...] = field(default=())

    def findings(self, level: float = LEVEL) -> tuple[Verdict, ...]:
        """Give what drifted, the surest first."""
        return tuple(sorted((one for one in self.verdicts if one.drifted(level)), key=lambda one: one.q))


def judge(reference: Reference, window: ModelWindow) -> Judged:
    """Judge a window, or several that were added up, by nothing but the reference.

    Counts for another reference say nothing of this one, and give no verdict.
    """
    if window.reference != reference.digest:
        return Judged()
    verdicts = [
        judge_feature(one, window.features[one.name])
        for one in reference.counted()
        if len(window.features.get(one.name, ())) == len(one.counts)
    ]
    if reference.classes and window.classes:
        verdicts.append(_judge_classes(reference, window.classes))
    if reference.joint is not None and len(window.rff_sum) == len(reference.joint.mean):
        verdicts.append(_judge_joint(reference.joint, window.rff_sum, window.rff_count))
    adjusted = benjamini_hochberg([one.p_that_matters for one in verdicts])
    return Judged(tuple(Verdict(v.name, v.n, v.tests, q) for v, q in zip(verdicts, adjusted, strict=True)))


def judge_feature(reference: FeatureReference, counts: Sequence[int]) -> Verdict:
    """Judge one feature's counts; its ``q`` is left at 1."""
    n = sum(counts)
    if n < FEWEST or not reference.nulls:
        return Verdict(reference.name, n)
    m = reference.total
    inverse = 1 / n + 1 / m
    gaps = cdf_gaps(reference.counts, counts)
    w1 = sum(gap * width for gap, width in zip(gaps, widths(reference), strict=True))
    ks = max(gaps, default=0.0)
    chi2, effect = chi_squared(reference.counts, counts)
    scaled: dict[Counted, float] = {
        "w1": w1 / math.sqrt(inverse),
        "ks": ks / math.sqrt(inverse),
        "chi2": chi2,
    }
    effects: dict[Counted, float] = {"w1": w1, "ks": ks, "chi2": effect}
    return Verdict(
        reference.name,
        n,
        tuple(Statistic(t, _p(reference.nulls, t, n, x), effects[t]) for t, x in scaled.items()),
    )


def _judge_classes(reference: Reference, classes: Mapping[str, int]) -> Verdict:
    expected, counts = class_counts(reference, classes)
    n = sum(counts)
    if n < FEWEST or not reference.class_nulls:
        return Verdict("classes", n)
    chi2, effect = chi_squared(expected, counts)
    return Verdict("classes", n, (Statistic("chi2", _p(reference.class_nulls, "chi2", n, chi2), effect),))


def _judge_joint(joint: JointReference, sums: Sequence[float], n: int) -> Verdict:
    if n < FEWEST or not joint.nulls:
        return Verdict("joint", n)
    distance, effect = joint_distance(joint, sums, n)
    return Verdict("joint", n, (Statistic("mmd", p_between(joint.nulls, distance), effect),))


# --- the statistics


def cdf_gaps(reference: Sequence[int], counts: Sequence[int]) -> list[float]:
    """Give, at each edge, how far apart the shares below it are."""
    n, m = sum(counts), sum(reference)
    gaps = []
    below = expected = 0
    for count, known in zip(counts[:-1], reference[:-1], strict=True):
        below += count
        expected += known
        gaps.append(abs(below / n - expected / m))
    return gaps


@lru_cache(maxsize=256)
def _widths(edges: tuple[float, ...], std: float) -> tuple[float, ...]:
    if len(edges) < 2 or std <= 0:  # noqa: PLR2004 - two edges have a distance
        return (1.0,) * len(edges)
    halves = [(high - low) / 2 for low, high in pairwise(edges)]
    return tuple((a + b) / std for a, b in zip([0.0, *halves], [*halves, 0.0], strict=True))


def widths(reference: FeatureReference) -> tuple[float, ...]:
    """Give what stretch of values each edge stands for, in standard deviations; 1 for a constant feature."""
    return _widths(reference.edges, reference.std)


def chi_squared(reference: Sequence[int], counts: Sequence[int]) -> tuple[float, float]:
    """Give the two-sample chi-squared of counts, and Cohen's w after what chance gives is taken off."""
    n, m = sum(counts), sum(reference)
    inverse = 1 / n + 1 / m
    distance = 0.0
    used = 0
    for count, known in zip(counts, reference, strict=True):
        if count + known:
            used += 1
            distance += (count / n - known / m) ** 2 * (n + m) / (count + known)
    return distance / inverse, math.sqrt(max(0.0, distance - (used - 1) * inverse))


def joint_distance(joint: JointReference, sums: Sequence[float], n: int) -> tuple[float, float]:
    """Give the squared distance of a window's mean from the reference's over ``1/n + 1/count``; the effect.

    Each cosine and sine counts in its own standard deviation: else the sines of a wide kernel, which see only
    means, drown the cosines, which see how features hang together.
    """
    inverse = 1 / n + 1 / joint.count
    parts = zip(sums, joint.mean, joint.std, strict=True)
    gaps = [(one / n - mean) / std for one, mean, std in parts]
    squared = math.fsum(gap * gap for gap in gaps)
    return squared / inverse, math.sqrt(max(0.0, squared / len(joint.std) - inverse))


def class_counts(reference: Reference, classes: Mapping[str, int]) -> tuple[list[int], list[int]]:
    """Give the reference's and a window's counts by class, ``other`` last.

    A window that counts rare classes together as ``other`` is compared in that grouping, exactly.
    """
    *kept, _ = counted_classes(reference, classes)
    expected = [reference.classes[name] for name in kept]
    counts = [classes.get(name, 0) for name in kept]
    expected.append(sum(reference.classes.values()) - sum(expected))
    counts.append(sum(classes.values()) - sum(counts))
    return expected, counts


def counted_classes(reference: Reference, classes: Mapping[str, int]) -> list[str]:
    """Give what the places of :func:`class_counts` are called, ``other`` last."""
    grouped = bool(classes.get(OTHER))
    return [name for name in reference.class_names()[:-1] if not grouped or name in classes] + [OTHER]


# --- from statistics to p-values


def _p(nulls: Sequence[Null], test: Counted, n: int, x: float) -> float:
    return p_between(_critical_values(nulls, test, n), x if test == "chi2" else x * x)


def _critical_values(nulls: Sequence[Null], test: Counted, n: int) -> tuple[float, ...]:
    """Give critical values at a sample size, between two sizes by its logarithm; of squares for w1 and ks."""
    above = next((place for place, null in enumerate(nulls) if null.size >= n), len(nulls) - 1)
    below = max(0, above - 1)
    low, high = nulls[below], nulls[above]
    share = 1.0
    if low.size < high.size:
        share = min(1.0, max(0.0, math.log(n / low.size) / math.log(high.size / low.size)))
    pairs = zip(_of(low, test), _of(high, test), strict=True)
    values = [a + share * (b - a) for a, b in pairs]
    return tuple(values if test == "chi2" else (value * value for value in values))


def _of(null: Null, test: Counted) -> tuple[float, ...]:
    return {"w1": null.w1, "ks": null.ks, "chi2": null.chi2}[test]


def p_between(critical: Sequence[float], x: float) -> float:
    """Give a p-value from the critical values at ``LEVELS``: straight lines between their logarithms."""
    if not critical or x <= 0:
        return 1.0
    known = [(0.0, 0.0), *((value, math.log(level)) for value, level in zip(critical, LEVELS, strict=True))]
    steps = [(a, b) for a, b in pairwise(known) if b[0] > a[0]]
    if not steps:  # without drift nothing but 0 occurs
        return LEVELS[-1]
    (low, log_low), (high, log_high) = next((step for step in steps if x <= step[1][0]), steps[-1])
    return min(1.0, math.exp(log_low + (x - low) / (high - low) * (log_high - log_low)))


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values for how many there are: least false discovery rate at which each is rejected.

    Benjamini and Hochberg, "Controlling the false discovery rate", J. R. Statist. Soc. B 57 (1995).
    """
    order = sorted(range(len(p_values)), key=lambda place: -p_values[place])
    adjusted = [1.0] * len(p_values)
    least = 1.0
    for rank, place in enumerate(order):
        least = min(least, p_values[place] * len(p_values) / (len(p_values) - rank))
        adjusted[place] = least
    return adjusted
