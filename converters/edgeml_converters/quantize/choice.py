"""The choice among candidates of a quantizer, by how close their outputs come to the float model's."""

from __future__ import annotations

import hashlib
import heapq
from collections import defaultdict
from collections.abc import Callable, Sequence
from math import fsum, log10
from statistics import fmean
from typing import Final

import numpy as np

from edgeml.arrays import Array
from edgeml.converter import Sample
from edgeml_converters.quantize.step import CheckedSamples

Run = Callable[[Sample], list[Array]]
"""Runs a model on one sample and gives its outputs, always in the same order."""
CHOICE_SAMPLES: Final = 100
"""Enough to tell candidates apart by tenths of a dB; keeps the choice as quick with 10,000 samples."""
DECIBEL_MAX: Final = 120.0
"""About what float32 itself holds."""


def closest(reference: Run, candidates: Sequence[Run], samples: CheckedSamples) -> tuple[int, float]:
    """Give the place and the SQNR in dB of the candidate whose outputs come closest to the reference's.

    At most ``CHOICE_SAMPLES`` samples are run, chosen by the hash of what they
    hold, and sums are exact, so that the order of the samples cannot change the choice.
    """
    chosen = set(heapq.nsmallest(CHOICE_SAMPLES, {_digest(sample) for sample in samples}))
    signal: dict[int, list[float]] = defaultdict(list)
    noise: list[dict[int, list[float]]] = [defaultdict(list) for _ in candidates]
    for sample in samples:
        digest = _digest(sample)
        if digest not in chosen:
            continue
        chosen.remove(digest)  # a sample that occurs again is not run again
        wanted = [np.asarray(value, np.float64) for value in reference(sample)]
        for place, value in enumerate(wanted):
            signal[place].append(float((value**2).sum()))
        for run, sums in zip(candidates, noise, strict=True):
            for place, value in enumerate(run(sample)):
                sums[place].append(float(((wanted[place] - value) ** 2).sum()))
    scores = [
        fmean(_decibel(fsum(signal[place]), fsum(sums[place])) for place in sorted(signal)) for sums in noise
    ]
    best = max(range(len(scores)), key=lambda place: scores[place])
    return best, scores[best]


def _digest(sample: Sample) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(sample):
        digest.update(np.ascontiguousarray(sample[name]).data)
    return digest.digest()


def _decibel(signal: float, noise: float) -> float:
    """Give the ratio in dB; capped, so that one exact output does not outweigh all others."""
    if noise <= 0.0:
        return DECIBEL_MAX
    return min(DECIBEL_MAX, 10.0 * log10(signal / noise)) if signal > 0.0 else 0.0
