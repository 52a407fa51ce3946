"""Latencies as an exponential histogram: a fixed number of buckets for any range, merged without loss.

Buckets are those of OpenTelemetry's exponential histogram at scale 3: bucket ``i`` holds values above
``2**(i/8)`` up to ``2**((i+1)/8)`` (data model, "Exponential Buckets"), 9 % wide each.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Final

from edgeml.errors import MessageError

BUCKETS_PER_DOUBLING: Final = 8
"""2**3, for scale 3."""
LOWEST: Final = -160
"""The bucket that ends just above a nanosecond, in milliseconds; what is below counts in it."""
HIGHEST: Final = 212
"""The bucket that ends above a day; what is above counts in it."""
MAX_COUNT: Final = 2**63 - 1


class Histogram:
    """Counts of milliseconds by bucket. For one thread at a time."""

    __slots__ = ("counts",)

    counts: dict[int, int]
    """Bucket index to count; a bucket that is empty may be missing."""

    def __init__(self, counts: Mapping[int, int] | None = None) -> None:
        self.counts = dict(counts or {})

    @property
    def total(self) -> int:
        """How many values were added."""
        return sum(self.counts.values())

    def add(self, value_ms: float, count: int = 1) -> None:
        """Count a value in milliseconds; what is not above 0 counts in the lowest bucket."""
        place = bucket(value_ms)
        self.counts[place] = self.counts.get(place, 0) + count

    def merge(self, other: Histogram) -> None:
        """Add the counts of another histogram to this one."""
        for place, count in other.counts.items():
            self.counts[place] = self.counts.get(place, 0) + count

    def quantile(self, q: float) -> float | None:
        """Give the value in milliseconds below which the share ``q`` lies; ``None`` if there are none.

        Off by half a bucket, 4.4 %, at most.
        """
        if not 0 <= q <= 1:
            raise ValueError(f"quantile {q}: a share is from 0 to 1")
        total = self.total
        if total <= 0:
            return None
        wanted, seen = max(1, math.ceil(q * total)), 0
        for place in sorted(self.counts):
            seen += self.counts[place]
            if seen >= wanted:
                break
        return float(2 ** ((place + 0.5) / BUCKETS_PER_DOUBLING))

    def to_json(self) -> dict[str, int]:
        """Give the counts as what ``json`` can write, lowest bucket first."""
        return {str(place): self.counts[place] for place in sorted(self.counts) if self.counts[place]}

    @classmethod
    def from_json(cls, counts: Mapping[str, int]) -> Histogram:
        """Read what :meth:`to_json` gave.

        Raises:
            MessageError: a bucket that is none, or a count below 0.
        """
        found: dict[int, int] = {}
        for text, count in counts.items():
            try:
                place = int(text)
            except ValueError:
                place = HIGHEST + 1
            if not LOWEST <= place <= HIGHEST or text != str(place):
                raise MessageError(f"a histogram has buckets {LOWEST} to {HIGHEST}, got {text[:20]!r}")
            if isinstance(count, bool) or not isinstance(count, int) or not 0 <= count <= MAX_COUNT:
                raise MessageError(f"a histogram's bucket {text} needs a count from 0, got {count!r:.40}")
            found[place] = count
        return cls(found)

    @classmethod
    def of(cls, values_ms: Iterable[float]) -> Histogram:
        """Count values in milliseconds."""
        made = cls()
        for value in values_ms:
            made.add(value)
        return made

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Histogram) and self.to_json() == other.to_json()

    __hash__ = None  # type: ignore[assignment] # it changes

    def __repr__(self) -> str:
        return f"Histogram({self.to_json()})"


def bucket(value_ms: float) -> int:
    """Give the index of the bucket that holds a value in milliseconds."""
    if not value_ms > 0:
        return LOWEST
    if value_ms == math.inf:
        return HIGHEST
    place = math.ceil(math.log2(value_ms) * BUCKETS_PER_DOUBLING) - 1
    return min(max(place, LOWEST), HIGHEST)
