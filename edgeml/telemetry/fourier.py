"""Random Fourier features: a row of numbers as cosines and sines, whose means tell distributions apart.

Rahimi and Recht, "Random features for large-scale kernel machines", NIPS 2007: for frequencies drawn from
a normal distribution the product of two rows' features is near their Gaussian kernel, so that the distance of
two means is near the maximum mean discrepancy (Gretton et al., "A kernel two-sample test", JMLR 2012).
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Final

from edgeml.telemetry.reference import FeatureReference, JointReference, Reference

CLIP: Final = 8.0
"""Standard deviations: one broken sensor shall not make noise of all frequencies."""
FREQUENCIES: Final = 64


@lru_cache(maxsize=16)
def frequencies(seed: int, count: int, dimensions: int, scale: float) -> tuple[tuple[float, ...], ...]:
    """Draw the frequencies: the same on every machine, but for the last bits of its logarithm and cosine.

    Normal numbers are made by Box and Muller's formula of ``random.Random(seed).random()``, whose numbers
    Python promises to keep.
    """
    draw = random.Random(seed).random  # noqa: S311 - no secret
    return tuple(
        tuple(
            math.sqrt(-2.0 * math.log(1.0 - draw())) * math.cos(2.0 * math.pi * draw()) / scale
            for _ in range(dimensions)
        )
        for _ in range(count)
    )


def standardised(chosen: Sequence[FeatureReference], row: Sequence[float]) -> list[float] | None:
    """Give a row in standard deviations from the reference's means; ``None`` if a value is no number."""
    z = [
        max(-CLIP, min(CLIP, (value - one.mean) / one.std)) if one.std > 0 else 0.0
        for one, value in zip(chosen, row, strict=True)
    ]
    return None if any(map(math.isnan, row)) else z


def fourier_sums(reference: Reference, rows: Iterable[Sequence[float]]) -> tuple[tuple[float, ...], int]:
    """Give ``rff_sum`` and ``rff_count`` of a window.

    A row takes 64 frequencies times as many products as there are features: where that is too much, give some
    rows only, chosen at random.

    Args:
        reference: has ``joint``.
        rows: values in the order of ``reference.joint.features``.
    """
    joint = _joint(reference)
    by_name = {one.name: one for one in reference.features}
    chosen = [by_name[name] for name in joint.features]
    waves = frequencies(joint.seed, joint.frequencies, len(chosen), joint.scale)
    cosines, sines, count = [0.0] * len(waves), [0.0] * len(waves), 0
    for row in rows:
        z = standardised(chosen, row)
        if z is None:
            continue
        count += 1
        for place, wave in enumerate(waves):
            angle = sum(map(float.__mul__, wave, z))
            cosines[place] += math.cos(angle)
            sines[place] += math.sin(angle)
    return (*cosines, *sines), count


def _joint(reference: Reference) -> JointReference:
    if reference.joint is None:
        raise ValueError("the reference has no joint distribution")
    return reference.joint
