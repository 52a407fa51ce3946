"""What counts look like that did not drift: drawn with numpy, for references and for servers.

Edges are order statistics of the reference data, so that the true shares of the bins between them are
Dirichlet distributed with the reference's counts as parameters, whatever the feature's distribution is
(Tukey, "Non-parametric estimation II: statistically equivalent blocks", Ann. Math. Statist. 18, 1947). Shares
are drawn from that, counts of a window from the shares: the reference's own error is in the null.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np

from edgeml.telemetry.drift import Counted, widths
from edgeml.telemetry.reference import LEVELS, FeatureReference, Null

if TYPE_CHECKING:
    from numpy.typing import NDArray

Array = Any
TRIALS: Final = 20_000
"""A rate of 1 % is then known to 7 % of itself."""
SIZES: Final = (30, 100, 300, 1_000, 3_000, 10_000, 100_000)
"""For which nulls travel in a bundle."""
TAIL: Final = 0.02
"""Beyond this a null is extrapolated: no simulation reaches what a fleet's many tests need."""
_ROOT2: Final = math.sqrt(2)
UNSEEN: Final = 0.5
"""Dirichlet parameter of a bin that no reference value fell into (Krichevsky and Trofimov)."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """The null distribution of one squared statistic: draws, and a tail beyond them.

    The root of each statistic is a norm of what is nearly a normal vector. The normal quantile of its
    distribution is concave (Ehrhard, "Symetrisation dans l'espace de Gauss", Math. Scand. 53, 1983), with a
    slope that falls to ``1 / sigma``: a normal tail of that slope is an upper bound of the rest. Where counts
    are too small to be normal, tails are longer: of the bound and an exponential fit the larger is taken.
    """

    values: NDArray[np.float32]
    """Rising."""
    start: float
    """Where the tail begins."""
    share: float
    """Of draws beyond it."""
    slope: float
    """Mean excess over ``start``; 0: there is no tail."""
    sigma: float
    """Largest standard deviation of the normal vector in any direction of the norm."""

    @classmethod
    def of(cls, values: Array, sigma: float) -> Self:
        """Fit the tail."""
        rising = np.sort(np.asarray(values, np.float32))
        start = float(rising[int((1 - TAIL) * len(rising))])
        beyond = rising[rising > start] - start
        slope = float(beyond.mean()) if len(beyond) else 0.0
        return cls(rising, start, len(beyond) / len(rising), slope, sigma)

    def p_values(self, x: Array) -> NDArray[np.float64]:
        """Give p-values: draws that are equal count half (mid-p), as statistics of counts have ties."""
        x = np.asarray(x, np.float64)
        # sums of the same counts differ in their last bits, and draws are kept in float32
        slack = 1e-6 * np.abs(x) + 1e-12
        low = np.searchsorted(self.values, x - slack, side="left")
        high = np.searchsorted(self.values, x + slack, side="right")
        count = len(self.values)
        body = np.maximum((count - (low + high) / 2) / count, 0.5 / count)
        if self.slope <= 0:
            return np.asarray(body)
        tail = np.array([self._tail(float(one)) for one in np.atleast_1d(x)]).reshape(x.shape)
        return np.asarray(np.where(x > self.start, tail, body))

    def critical(self) -> tuple[float, ...]:
        """Give the critical values at ``LEVELS``."""
        return tuple(
            float(np.quantile(self.values, 1 - level))
            if level >= TAIL or self.slope <= 0
            else self._beyond(level)
            for level in LEVELS
        )

    def _tail(self, x: float) -> float:
        if x <= self.start:
            return 1.0
        normal = 0.5 * math.erfc(
            (self._anchor() + (math.sqrt(x) - math.sqrt(self.start)) / self.sigma) / _ROOT2
        )
        return min(1.0, max(normal, self.share * math.exp(-(x - self.start) / self.slope)))

    def _beyond(self, level: float) -> float:
        if level >= self.share:
            return self.start
        normal = math.sqrt(self.start) + self.sigma * (-NormalDist().inv_cdf(level) - self._anchor())
        return max(normal**2, self.start + self.slope * math.log(self.share / level))

    def _anchor(self) -> float:
        return -NormalDist().inv_cdf(self.share)


def gaps_and_distances(
    reference: Array, counts: Array
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Give what all statistics of many windows are made of, as :mod:`edgeml.telemetry.drift` defines them.

    Args:
        reference: counts by bin.
        counts: [windows, bins], each with at least one value.

    Returns:
        At each edge how far apart the shares below it are, [windows, edges]; chi-squared over ``1/n + 1/m``;
        how many bins were used less one, times that.
    """
    counts = np.asarray(counts, np.float64)
    known = np.asarray(reference, np.float64)
    n, m = counts.sum(1), known.sum()
    gaps = np.abs(np.cumsum(counts[:, :-1], 1) / n[:, None] - np.cumsum(known[:-1]) / m)
    pooled = counts + known
    squares = (counts / n[:, None] - known / m) ** 2 * (n + m)[:, None]
    distance = np.divide(squares, pooled, out=np.zeros_like(squares), where=pooled > 0).sum(1)
    return gaps, distance, ((pooled > 0).sum(1) - 1) * (1 / n + 1 / m)


def statistics(
    reference: Array, edge_widths: tuple[float, ...], counts: Array
) -> tuple[dict[Counted, NDArray[np.float64]], dict[Counted, NDArray[np.float64]]]:
    """Give scaled statistics (squared for w1 and ks) and effects of many windows, [windows, bins]."""
    gaps, distance, chance = gaps_and_distances(reference, counts)
    inverse = 1 / np.asarray(counts).sum(1) + 1 / np.sum(reference)
    w1 = gaps @ np.asarray(edge_widths, np.float64)
    ks = gaps.max(1, initial=0.0)
    w = np.sqrt(np.maximum(0, distance - chance))
    scaled: dict[Counted, Any] = {"w1": w1**2 / inverse, "ks": ks**2 / inverse, "chi2": distance / inverse}
    return scaled, {"w1": w1, "ks": ks, "chi2": w}


def draw_counts(parameters: Array, n: int, trials: int, seed: int) -> NDArray[np.int64]:
    """Draw windows of ``n`` values that did not drift: [trials, bins]."""
    generator = np.random.default_rng(seed)
    shares = generator.standard_gamma(np.asarray(parameters, np.float64), (trials, len(parameters)))
    shares /= shares.sum(1, keepdims=True)
    return np.asarray(generator.multinomial(n, shares))


def dirichlet(counts: tuple[int, ...], *, discrete: bool) -> tuple[float, ...]:
    """Give the parameters of the true shares' distribution."""
    known = [float(count) or UNSEEN for count in counts]
    if not discrete:  # m values part the line in m + 1 blocks, one more than counts
        known[0] += 1 if counts[0] else UNSEEN
    return tuple(known)


@lru_cache(maxsize=24)
def _windows(counts: tuple[int, ...], n: int, *, discrete: bool) -> tuple[NDArray[np.float32], Drawn, Drawn]:
    """Give what features with the same counts share: gaps of drawn windows, nulls of ks and chi2."""
    windows = draw_counts(dirichlet(counts, discrete=discrete), n, TRIALS, seed=n)
    gaps, distance, _ = gaps_and_distances(counts, windows)
    inverse = 1 / n + 1 / sum(counts)
    ks = Drawn.of(gaps.max(1, initial=0.0) ** 2 / inverse, sigma=0.5)
    return gaps.astype(np.float32), ks, Drawn.of(distance / inverse, sigma=1.0)


@lru_cache(maxsize=512)
def drawn(
    counts: tuple[int, ...], edge_widths: tuple[float, ...], n: int, *, discrete: bool
) -> dict[Counted, Drawn]:
    """Give the nulls of a feature's statistics at a sample size; kept."""
    gaps, ks, chi2 = _windows(counts, n, discrete=discrete)
    w1 = gaps @ np.asarray(edge_widths, np.float32)
    squares = w1.astype(np.float64) ** 2 / (1 / n + 1 / sum(counts))
    return {"w1": Drawn.of(squares, _w1_sigma(counts, edge_widths)), "ks": ks, "chi2": chi2}


def _w1_sigma(counts: tuple[int, ...], edge_widths: tuple[float, ...]) -> float:
    """Give the standard deviation of the sum of all gaps: those of a Brownian bridge, which go together."""
    below = np.cumsum(counts[:-1]) / sum(counts)
    together = np.minimum.outer(below, below) - np.outer(below, below)
    widths_ = np.asarray(edge_widths)
    return math.sqrt(max(float(widths_ @ together @ widths_), 1e-12))


def nulls_of(reference: FeatureReference, sizes: tuple[int, ...] = SIZES) -> tuple[Null, ...]:
    """Give the nulls that travel with a feature."""
    found = []
    for size in sizes:
        at = drawn(reference.counts, widths(reference), size, discrete=reference.discrete)
        roots = {test: tuple(value**0.5 for value in at[test].critical()) for test in ("w1", "ks")}
        found.append(Null(size, _short(roots["w1"]), _short(roots["ks"]), _short(at["chi2"].critical())))
    return tuple(found)


def class_nulls(counts: tuple[int, ...], sizes: tuple[int, ...] = SIZES) -> tuple[Null, ...]:
    """Give the nulls of class counts: ``chi2`` alone, as classes have no order."""
    flat = (1.0,) * (len(counts) - 1)
    return tuple(
        Null(size, chi2=_short(drawn(counts, flat, size, discrete=True)["chi2"].critical())) for size in sizes
    )


@lru_cache(maxsize=64)
def drawn_distance(spectrum: tuple[float, ...]) -> Drawn:
    """Give the null of ``telemetry.drift.joint_distance``.

    It is a sum of squared normal numbers, weighted with the eigenvalues of the rows' correlation (Gretton
    et al. 2012, theorem 12, with features of finite number).
    """
    generator = np.random.default_rng(len(spectrum))
    squares = generator.standard_normal((TRIALS, len(spectrum)))
    return Drawn.of(squares**2 @ np.maximum(0, spectrum), math.sqrt(max(0.0, *spectrum)) or 1.0)


def _short(values: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(float(f"{value:.5g}") for value in values)
