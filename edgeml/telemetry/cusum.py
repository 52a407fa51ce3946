"""Small drift that lasts: what no single window shows, summed up over windows (CUSUM).

Each value scores by its place among the reference's values, from -1/2 to 1/2: for ``up`` and ``down`` by how
far above or below the median it lies, for ``wider`` and ``narrower`` by how far outside or inside. For scores
``s`` with standard deviation ``d`` in the reference, a window of ``n`` values adds

    a * sum(s) - n * (a * b + log mean(exp(a * s)))        a = 0.05 / d,   b = (0.025 + 2.6 / sqrt(m)) * d

to a sum that is never below 0. For values distributed as the reference is, ``exp`` of a step has a mean of at
most 1 (it is an e-value), whatever the sizes of the windows, so that the mean time between false alarms is at
least ``exp(ALARM)`` windows (Lorden, "Procedures for reacting to a change in distribution", Ann. Math.
Statist. 42, 1971; Shin, Ramdas and Rinaldo, "E-detectors", 2022). ``b`` is what does not matter (a fortieth
of a standard deviation) and what the reference's own error can be (2.6 of its standard errors).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import Final

from edgeml.telemetry.reference import FeatureReference

ALARM: Final = math.log(1e8)
"""One false alarm of a feature in a direction in 10^8 windows, at most, in the mean: 190 years of minutes."""
HIGHEST: Final = 2 * ALARM
"""Of a sum: so a feature that came back is seen to have as soon as its drift was."""
AIM: Final = 0.05
"""Of the scores' standard deviation: change for which the sum grows fastest, beyond what is tolerated."""
TOLERATED: Final = 0.025
ERRORS: Final = 2.6
"""Standard errors of the reference: 99.5 of 100 references are nearer to the truth."""
DIRECTIONS: Final = ("up", "down", "wider", "narrower")


@dataclass(frozen=True, slots=True)
class CusumState:
    """Where the sums of one feature stand, by direction."""

    sums: tuple[float, ...] = (0.0,) * len(DIRECTIONS)
    since: tuple[float, ...] = (math.nan,) * len(DIRECTIONS)
    """When each last was 0: about when the change began, if there was one."""

    def alarms(self) -> tuple[str, ...]:
        """Give the directions in which the feature has drifted."""
        return tuple(name for name, value in zip(DIRECTIONS, self.sums, strict=True) if value >= ALARM)


def cusum(reference: FeatureReference, state: CusumState, counts: Sequence[int], begins: float) -> CusumState:
    """Add a window.

    Args:
        reference: of the feature that was counted.
        state: after the window before.
        counts: of the window.
        begins: when the window began.
    """
    plain = list(map(float, counts))
    steps = [sum(map(float.__mul__, weights, plain)) for weights in step_weights(reference.counts)]
    sums = tuple(max(0.0, old + step) for old, step in zip(state.sums, steps, strict=True))
    since = tuple(
        begins if old <= 0.0 else before for old, before in zip(state.sums, state.since, strict=True)
    )
    return CusumState(sums, since)


@lru_cache(maxsize=256)
def step_weights(counts: tuple[int, ...]) -> tuple[tuple[float, ...], ...]:
    """Give, by direction, what a value in each bin adds to the sum; zeros for a constant feature.

    Args:
        counts: of the reference.
    """
    total = sum(counts)
    below = accumulate(counts, initial=0)
    ranks = [(start + count / 2) / total - 0.5 for start, count in zip(below, counts, strict=False)]
    outside = [abs(rank) for rank in ranks]
    centre = math.fsum(count * one for count, one in zip(counts, outside, strict=True)) / total
    scores = [ranks, [one - centre for one in outside]]
    return tuple(_weights([sign * one for one in some], counts, total) for some in scores for sign in (1, -1))


def _weights(scores: Sequence[float], counts: Sequence[int], total: int) -> tuple[float, ...]:
    pairs = list(zip(counts, scores, strict=True))
    deviation = math.sqrt(math.fsum(count * one * one for count, one in pairs) / total)
    if deviation < 1e-9:  # noqa: PLR2004 - a constant has no places to score by
        return (0.0,) * len(counts)
    pull = AIM / deviation
    tolerated = (TOLERATED + ERRORS / math.sqrt(total)) * deviation
    growth = math.log(math.fsum(count * math.exp(pull * one) for count, one in pairs) / total)
    return tuple(pull * (one - tolerated) - growth for one in scores)
