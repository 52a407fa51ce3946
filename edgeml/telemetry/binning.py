"""Entries of rings, made counts of: column by column, by what the interpreter does in C."""

from __future__ import annotations

import math
import operator
import sys
from array import array
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from edgeml.telemetry.exponential import SCALE, ExponentialHistogram, bucket, from_buckets, histogram_of
from edgeml.telemetry.report import OTHER
from edgeml.telemetry.ring import CALL

_WORDS: Final = CALL.size // 8
_END, _BEGIN = 0, 1
_STAGES: Final = {"preprocess": 2, "run": 3, "postprocess": 4}
_SAID: Final = 5
_CONFIDENCE_AT, _LABEL_AT, _ERROR_AT = 40, 44, 46
_NUMBER: Final = 8
_SIGN_AT: Final = 7 if sys.byteorder == "little" else 0
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

    __slots__ = ("_data", "_reals", "_says_more", "count")

    def __init__(self, entries: bytes) -> None:
        self._data, self.count = entries, len(entries) // CALL.size
        self._reals = array("d", entries)
        self._says_more = _has_any(self._reals[_SAID::_WORDS])
        """Whether any call has a confidence, a label or an error."""

    def entry(self, place: int) -> Entry:
        """Give one of the calls."""
        end, begin, _, _, _, confidence, label, error, number = CALL.unpack_from(
            self._data, place * CALL.size
        )
        latency_s = end - begin if begin > 0 else -begin
        latency_s = latency_s if 0 <= latency_s <= _MOST else 0.0
        end = end if 0 <= end <= _MOST else 0.0
        return Entry(end, latency_s, (confidence - 1) / _NANO if confidence else None, label, error, number)

    def latencies(self) -> list[float]:
        """Give seconds of each whole call."""
        ends, begins = self._reals[_END::_WORDS], self._reals[_BEGIN::_WORDS]
        if begins.tobytes()[_SIGN_AT::_NUMBER].isascii():  # none is negated
            return list(map(operator.sub, ends.tolist(), begins.tolist()))
        return [end - begin if begin > 0 else -begin for end, begin in zip(ends, begins, strict=True)]

    def stages(self) -> dict[str, list[float]]:
        """Give seconds of the parts of those calls that told them."""
        columns = {stage: self._reals[place::_WORDS] for stage, place in _STAGES.items()}
        return {stage: list(filter(None, column)) for stage, column in columns.items() if _has_any(column)}

    def confidences(self) -> Sequence[int]:
        """Give each call's confidence in 1e-9 and one more, 0 where it has none; nothing if none has."""
        return self._column("I", _CONFIDENCE_AT)

    def labels(self) -> Sequence[int]:
        """Give what stands for each call's label, 0 where it has none; nothing if none has."""
        return self._column("H", _LABEL_AT)

    def errors(self) -> Sequence[int]:
        """Give what stands for each call's error, 0 where it has none; nothing if none has."""
        return self._column("H", _ERROR_AT)

    def _column(self, kind: str, place_bytes: int) -> Sequence[int]:
        if not self._says_more:
            return ()
        whole: array[int] = array(kind, self._data)
        column = whole[place_bytes // whole.itemsize :: CALL.size // whole.itemsize]
        return column if _has_any(column) else ()


def _has_any(column: array[Any]) -> bool:
    data = column.tobytes()
    return data != bytes(len(data))


def binned(values: Sequence[float]) -> ExponentialHistogram:
    """Count many values at once, as :func:`histogram_of` counts each; the sum is rounded once."""
    inorder = sorted(values)
    if not inorder or not (inorder[0] > 0 and inorder[-1] <= _MOST):
        return histogram_of(values)
    try:
        total = math.fsum(inorder)
    except (ValueError, OverflowError):
        return histogram_of(values)
    if not math.isfinite(total):  # what is no number is not in order
        return histogram_of(values)
    first, last = bucket(inorder[0]), bucket(inorder[-1])
    found: dict[int, int] = {}
    seen = 0
    for place in range(first, last + 1):
        below = bisect_right(inorder, _bound(place), seen)
        if below > seen:
            found[place] = below - seen
            seen = below
    return from_buckets(found, 0, round(total * _NANO), inorder[0], inorder[-1])


@cache
def _bound(place: int) -> float:
    """Give the greatest value that :func:`bucket` puts there, to the last bit."""
    bound = float(2 ** ((place + 1) / (1 << SCALE)))
    while bucket(bound) > place:
        bound = math.nextafter(bound, 0.0)
    while bound < _MOST and bucket(math.nextafter(bound, math.inf)) <= place:  # the last has no end
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
