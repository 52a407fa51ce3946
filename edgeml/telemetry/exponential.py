"""Exponential histograms: exact counts in buckets whose bounds are powers of one base, merged without loss.

Bucket ``i`` of scale ``s`` holds values above ``2**(i/2**s)`` up to ``2**((i+1)/2**s)`` (OpenTelemetry's
data model, "ExponentialHistogram"). Everything that is counted or summed is an integer, so that merging in
any order, in any database, gives the same bits.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

SCALE: Final = 5
"""Of what devices record: buckets 2.2 % wide, a quantile is off by 1.1 % at most."""
ROLLUP_SCALE: Final = 3
"""Of hours: buckets 9.1 % wide."""
_LOWEST: Final = 1e-9
_HIGHEST: Final = 1e9
"""Values outside count in the last bucket on their side, so that no histogram grows without bound."""


@dataclass(frozen=True, slots=True)
class ExponentialHistogram:
    """Counts of values from 0 on, seconds where nothing else is said."""

    offset: int = 0
    """Index of the first bucket in ``counts``."""
    counts: tuple[int, ...] = ()
    """By bucket, without gaps; the first and last are above 0."""
    zero: int = 0
    """Count of values that are 0."""
    sum_nano: int = 0
    """Sum of all values, in 1e-9 of their unit."""
    min: float = math.inf
    max: float = -math.inf
    scale: int = SCALE

    @property
    def total(self) -> int:
        """How many values were counted."""
        return self.zero + sum(self.counts)


_MOST_SUM_NANO: Final = 2**63 - 1
"""A database's integer: nobody who takes nanoseconds for seconds shall have a whole report refused."""
EMPTY: Final = ExponentialHistogram()


def bucket(value: float, scale: int = SCALE) -> int:
    """Give the index of the bucket that holds a value above 0."""
    return math.ceil(math.log2(min(max(value, _LOWEST), _HIGHEST)) * (1 << scale)) - 1


def histogram_of(values: Iterable[float], scale: int = SCALE) -> ExponentialHistogram:
    """Count values; what is below 0 or no number counts as 0."""
    found: dict[int, int] = {}
    zero = sum_nano = 0
    least, most = math.inf, -math.inf
    for given in values:
        value = min(given, _HIGHEST) if given > 0 else 0.0
        if value:
            place = bucket(value, scale)
            found[place] = found.get(place, 0) + 1
        else:
            zero += 1
        sum_nano += round(value * 1e9)
        least, most = min(least, value), max(most, value)
    return from_buckets(found, zero, sum_nano, least, most, scale)


def merge(histograms: Iterable[ExponentialHistogram], scale: int | None = None) -> ExponentialHistogram:
    """Add histograms up, exactly, at the coarsest scale among them and ``scale``."""
    several = list(histograms)
    if len(several) == 1 and scale in {None, several[0].scale}:
        return several[0]
    if not several:
        return EMPTY if scale is None else ExponentialHistogram(scale=scale)
    coarsest = min([one.scale for one in several] + ([] if scale is None else [scale]))
    found: dict[int, int] = {}
    for one in several:
        shift = one.scale - coarsest
        for place, count in enumerate(one.counts, one.offset):
            found[place >> shift] = found.get(place >> shift, 0) + count
    return from_buckets(
        found,
        sum(one.zero for one in several),
        sum(one.sum_nano for one in several),
        min(one.min for one in several),
        max(one.max for one in several),
        coarsest,
    )


def quantiles(histogram: ExponentialHistogram, shares: Sequence[float]) -> list[float]:
    """Give the values below which shares (0 to 1) lie; none if nothing was counted.

    Each is the middle of its bucket on the logarithmic scale, kept between the least and the greatest value.
    """
    below = list(accumulate(histogram.counts, initial=histogram.zero))
    total = below[-1]
    if total == 0:
        return []
    found = []
    for share in shares:
        wanted = max(1, math.ceil(share * total))
        if histogram.zero >= wanted:
            found.append(0.0)
            continue
        place = histogram.offset - 1 + bisect_left(below, wanted)
        middle = 2 ** ((place + 0.5) / (1 << histogram.scale))
        found.append(float(min(max(middle, histogram.min), histogram.max)))
    return found


def from_buckets(
    found: Mapping[int, int], zero: int, sum_nano: int, least: float, most: float, scale: int = SCALE
) -> ExponentialHistogram:
    """Make a histogram of counts by bucket index."""
    sum_nano = min(sum_nano, _MOST_SUM_NANO)
    places = [place for place, count in found.items() if count]
    if not places:
        return ExponentialHistogram(0, (), zero, sum_nano, least, most, scale)
    first, last = min(places), max(places)
    counts = tuple(found.get(place, 0) for place in range(first, last + 1))
    return ExponentialHistogram(first, counts, zero, sum_nano, least, most, scale)
