"""Entries of rings, made counts of: column by column, by what the interpreter does in C."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

from edgeml.telemetry.exponential import SCALE, ExponentialHistogram, bucket, from_buckets, histogram_of
from edgeml.telemetry.report import OTHER
from edgeml.telemetry.ring import CALL

_WORDS: Final = CALL.size // 8
_END, _BEGIN, _PREPROCESS, _RUN, _POSTPROCESS = range(5)
_CONFIDENCE_AT: Final = (10, CALL.size // 4)
"""Place in an entry and entry's size, in words of 4 bytes."""
_LABEL_AT: Final = (22, CALL.size // 2)
_ERROR_AT: Final = (23, CALL.size // 2)
_NANO: Final = 1e9
_MOST: Final = 1e9
"""Seconds; what is above is left to :func:`histogram_of`."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One call."""

    end: float
    """By the monotonic clock."""
    latency_s: float
    confidence: float | None
    label: int
    error: int
    number: int


class Calls:
    """Columns of a ring's entries."""

    __slots__ = ("_data", "count")

    def __init__(self, entries: bytes) -> None:
        self._data = memoryview(entries)
        self.count = len(entries) // CALL.size

    def entry(self, place: int) -> Entry:
        """Give one of the calls."""
        end, begin, _, _, _, confidence, label, error, number = CALL.unpack_from(
            self._data, place * CALL.size
        )
        latency_s = end - begin if begin > 0 else -begin
        return Entry(end, latency_s, (confidence - 1) / _NANO if confidence else None, label, error, number)

    def latencies(self) -> list[float]:
        """Give seconds of each whole call."""
        numbers: memoryview[float] = self._data.cast("d")
        ends, begins = numbers[_END::_WORDS].tolist(), numbers[_BEGIN::_WORDS].tolist()
        return [end - begin if begin > 0 else -begin for end, begin in zip(ends, begins, strict=True)]

    def stages(self) -> dict[str, list[float]]:
        """Give seconds of the parts of those calls that told them."""
        numbers: memoryview[float] = self._data.cast("d")
        columns = {
            "preprocess": numbers[_PREPROCESS::_WORDS].tolist(),
            "run": numbers[_RUN::_WORDS].tolist(),
            "postprocess": numbers[_POSTPROCESS::_WORDS].tolist(),
        }
        return {stage: list(filter(None, column)) for stage, column in columns.items() if any(column)}

    def confidences(self) -> list[int]:
        """Give each call's confidence in 1e-9 and one more; 0: it has none."""
        first, step = _CONFIDENCE_AT
        return self._data.cast("I")[first::step].tolist()

    def labels(self) -> list[int]:
        first, step = _LABEL_AT
        return self._data.cast("H")[first::step].tolist()

    def errors(self) -> list[int]:
        first, step = _ERROR_AT
        return self._data.cast("H")[first::step].tolist()


def binned(values: Sequence[float]) -> ExponentialHistogram:
    """Count many values at once, as :func:`histogram_of` counts each; the sum is rounded once."""
    inorder = sorted(values)
    if not inorder or not (inorder[0] > 0 and inorder[-1] <= _MOST and all(map(math.isfinite, values))):
        return histogram_of(values)
    first, last = bucket(inorder[0]), bucket(inorder[-1])
    found: dict[int, int] = {}
    seen = 0
    for place in range(first, last + 1):
        below = bisect_right(inorder, _bound(place), seen)
        if below > seen:
            found[place] = below - seen
            seen = below
    return from_buckets(found, 0, round(math.fsum(inorder) * _NANO), inorder[0], inorder[-1])


@cache
def _bound(place: int) -> float:
    """Give the greatest value that :func:`bucket` puts there, to the last bit."""
    bound = float(2 ** ((place + 1) / (1 << SCALE)))
    while bucket(bound) > place:
        bound = math.nextafter(bound, 0.0)
    while bucket(math.nextafter(bound, math.inf)) <= place:
        bound = math.nextafter(bound, math.inf)
    return bound


def top(counts: Counter[str], most: int) -> dict[str, int]:
    """Keep the most frequent names, the others together as ``other``."""
    if len(counts) <= most:
        return dict(counts)
    rest = counts.pop(OTHER, 0)
    kept = dict(sorted(counts.items(), key=lambda one: (-one[1], one[0]))[: most - 1])
    kept[OTHER] = rest + counts.total() - sum(kept.values())
    return kept


def between(edges: Sequence[float], values: Sequence[float]) -> tuple[int, ...]:
    """Count values between edges, as ``FeatureReference.count`` counts each."""
    inorder = sorted(value for value in values if value == value)  # noqa: PLR0124 - is a number
    ends = [bisect_left(inorder, edge) for edge in edges]
    counts = [end - begin for begin, end in zip([0, *ends], [*ends, len(inorder)], strict=True)]
    counts[-1] += len(values) - len(inorder)
    return tuple(counts)
