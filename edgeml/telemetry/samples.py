"""Examples of what a model did: some at random, those that failed, and those that it was least sure of."""

from __future__ import annotations

import heapq
import math
import random
import time
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Final, Literal

from edgeml.telemetry.binning import Calls
from edgeml.telemetry.raw import MOST_BYTES, read_raw
from edgeml.telemetry.report import MOST_SAMPLES, Sample
from edgeml.telemetry.ring import RingInfo

RANDOM: Final = 5
UNSURE: Final = 5
ERRORS: Final = MOST_SAMPLES - RANDOM - UNSURE
"""Of one window; what has failed more often is in the counts."""

Why = Literal["random", "error", "unsure"]
_Place = tuple[int, int]
"""Of a call: its ring and its place in there."""
Rows = Mapping[int, tuple[float, ...]]
"""Features by number of the call."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """What was read of one ring of calls."""

    info: RingInfo
    calls: Calls
    texts: Mapping[int, str]
    """Of labels and errors, by what stands for them in entries."""


@dataclass(frozen=True, slots=True)
class RawInputs:
    """The inputs that processes kept."""

    folder: Path
    numbers: Mapping[str, AbstractSet[int]]
    """By ring: of the inferences."""


def choose(
    several: Sequence[Recorded], features: Mapping[str, Rows], raw: RawInputs, dice: random.Random
) -> tuple[Sample, ...]:
    """Choose examples, each call at most once; of calls that are as good, those whose input was kept.

    Args:
        several: the rings of one model.
        features: by ring of the calls.
        raw: the inputs that were kept.
        dice: chooses.
    """
    with_input = [(ring, place) for ring, one in enumerate(several) for place in _kept(one, raw)]
    failed = [(ring, place) for ring, one in enumerate(several) for place in _failed(one.calls)]
    errors = [one for one in with_input if one in set(failed)] + dice.sample(failed, min(ERRORS, len(failed)))
    taken: dict[_Place, Why] = dict.fromkeys(list(dict.fromkeys(errors))[:ERRORS], "error")
    for unsure in _unsure(several):
        taken.setdefault(unsure, "unsure")
    others = [one for one in with_input if one not in taken] + _any(several, dice)
    taken |= dict.fromkeys([one for one in dict.fromkeys(others) if one not in taken][:RANDOM], "random")
    begun_at, room = time.time() - time.monotonic(), MOST_BYTES
    found = []
    for (ring, place), why in taken.items():
        one = several[ring]
        sample = _sample(one, place, why, features.get(one.info.ring, {}), begun_at)
        if (ring, place) in with_input:
            content = read_raw(raw.folder, one.info.ring, one.calls.entry(place).number, room)
            room -= len(content or b"")
            sample = replace(sample, raw=content)
        found.append(sample)
    return tuple(found)


def _kept(one: Recorded, raw: RawInputs) -> list[int]:
    """Give the places of calls whose input was kept."""
    numbers = raw.numbers.get(one.info.ring)
    if not numbers or not one.calls.count:
        return []
    first = one.calls.entry(0).number
    places = [number - first for number in sorted(numbers) if 0 <= number - first < one.calls.count]
    return [place for place in places if one.calls.entry(place).number in numbers]


def _any(several: Sequence[Recorded], dice: random.Random) -> list[_Place]:
    starts = list(accumulate((one.calls.count for one in several), initial=0))
    numbers = dice.sample(range(starts[-1]), min(RANDOM, starts[-1]))
    rings = [bisect_right(starts, number) - 1 for number in numbers]
    return [(ring, number - starts[ring]) for ring, number in zip(rings, numbers, strict=True)]


def _failed(calls: Calls) -> list[int]:
    errors = calls.errors()
    return [place for place, code in enumerate(errors) if code] if any(errors) else []


def _unsure(several: Sequence[Recorded]) -> list[_Place]:
    """Give the places of the least confidences, the least first."""
    found: list[tuple[int, int, int]] = []
    for ring, one in enumerate(several):
        column = one.calls.confidences()
        for code in set(heapq.nsmallest(UNSURE, filter(None, column))):
            place = -1
            with suppress(ValueError):  # no more of them
                for _ in range(UNSURE):
                    place = column.index(code, place + 1)
                    found.append((code, ring, place))
    return [(ring, place) for _, ring, place in sorted(found)[:UNSURE]]


def _sample(one: Recorded, place: int, why: Why, rows: Rows, begun_at: float) -> Sample:
    entry = one.calls.entry(place)
    row = rows.get(entry.number)
    return Sample(
        at=min(max(begun_at + entry.end, one.info.created), time.time()),
        why=why,
        latency_s=entry.latency_s,
        label=one.texts.get(entry.label) or None,
        confidence=entry.confidence,
        error=one.texts.get(entry.error) or None,
        features=row if row is not None and all(map(math.isfinite, row)) else None,
    )
