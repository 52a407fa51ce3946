"""Examples of what a model did: some at random, those that failed, and those that it was least sure of."""

from __future__ import annotations

import heapq
import math
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from edgeml.telemetry.binning import Calls
from edgeml.telemetry.report import MOST_SAMPLES, Sample
from edgeml.telemetry.ring import RingInfo

RANDOM: Final = 5
UNSURE: Final = 5
ERRORS: Final = MOST_SAMPLES - RANDOM - UNSURE
"""Of one window; what has failed more often is in the counts."""

Rows = Mapping[int, tuple[float, ...]]
"""Features by number of the call."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """What was read of one ring of calls."""

    info: RingInfo
    calls: Calls
    texts: Mapping[int, str]
    """Of labels and errors, by what stands for them in entries."""


def choose(
    several: Sequence[Recorded], features: Mapping[str, Rows], dice: random.Random
) -> tuple[Sample, ...]:
    """Choose examples, each call at most once.

    Args:
        several: the rings of one model.
        features: by ring of the calls.
        dice: chooses.
    """
    places = [(ring, place) for ring, one in enumerate(several) for place in _failed(one.calls)]
    taken: dict[tuple[int, int], Literal["random", "error", "unsure"]] = dict.fromkeys(
        dice.sample(places, min(ERRORS, len(places))), "error"
    )
    for _, ring, place in heapq.nsmallest(UNSURE, _confident(several)):
        taken.setdefault((ring, place), "unsure")
    starts = [0]
    for one in several:
        starts.append(starts[-1] + one.calls.count)
    for number in dice.sample(range(starts[-1]), min(RANDOM, starts[-1])):
        ring = next(ring for ring in range(len(several)) if number < starts[ring + 1])
        taken.setdefault((ring, number - starts[ring]), "random")
    now = time.time() - time.monotonic()
    return tuple(
        _sample(several[ring], place, why, features.get(several[ring].info.ring, {}), now)
        for (ring, place), why in taken.items()
    )


def _failed(calls: Calls) -> list[int]:
    errors = calls.errors()
    return [place for place, code in enumerate(errors) if code] if any(errors) else []


def _confident(several: Sequence[Recorded]) -> Iterator[tuple[int, int, int]]:
    for ring, one in enumerate(several):
        confidences = one.calls.confidences()
        if any(confidences):
            yield from ((code, ring, place) for place, code in enumerate(confidences) if code)


def _sample(
    one: Recorded, place: int, why: Literal["random", "error", "unsure"], rows: Rows, begun_at: float
) -> Sample:
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
