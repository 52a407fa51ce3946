"""The few numbers that stand for a model's inputs: the same when a bundle is made and on the device.

An input of at most ``MOST_VALUES`` values is its own features, ``x[0]``, ``x[1]`` … Of a longer one (an
image, sound, a window of a sensor) these are computed, from at most ``PICKED`` values spread over all of it:

    x.mean  x.std  x.min  x.max
    x.detail                        mean absolute difference of neighbours: focus, noise, clipping
    x.channel0 x.channel1 x.channel2    means of an image's colours: white balance

Arrays only choose the values; the arithmetic is Python's, its sums are exactly rounded (:func:`math.fsum`),
so that two machines give the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from edgeml.telemetry.report import MOST_FEATURES
from edgeml.tensors import Quantization, TensorSpec

if TYPE_CHECKING:
    from edgeml.arrays import Array

MOST_VALUES: Final = 32
PICKED: Final = 256
"""A mean of 256 spread values is off by a sixteenth of their standard deviation."""
SUMMARY: Final = ("mean", "std", "min", "max", "detail")
IMAGE_RANK: Final = 4
COLOURS: Final = 3


@dataclass(frozen=True, slots=True)
class InputFeatures:
    """How the features of one input are computed."""

    input: str
    names: tuple[str, ...]
    values: int = 0
    """Each sample has so many values, and they are the features; 0: they are summed up."""
    batched: bool = True
    """The first dimension counts samples, each of which gives a row of features."""
    gap: int = 1
    """Distance of neighbours in memory."""
    colours: str = ""
    """Where the colours of an image stand: ``last``, ``first``, or there are none."""
    quantization: Quantization | None = None
    """Of a stored input: integers are made real numbers first."""


def input_features(inputs: Sequence[TensorSpec]) -> tuple[InputFeatures, ...]:
    """Say which features a model's inputs have: at most ``MOST_FEATURES``, the first inputs first."""
    found: list[InputFeatures] = []
    room = MOST_FEATURES
    for spec in inputs:
        one = _features(spec)
        if one is not None and len(one.names) <= room:
            found.append(one)
            room -= len(one.names)
    return tuple(found)


def _features(spec: TensorSpec) -> InputFeatures | None:
    batched = bool(spec.shape) and spec.shape[0] in {None, 1}
    sides = spec.shape[1:] if batched else spec.shape
    quantization = spec.quantization
    if quantization is not None and len(quantization.scale) != 1:
        return None
    size = math.prod(side for side in sides if side is not None)
    if None not in sides and size == 0:
        return None
    if None not in sides and size <= MOST_VALUES:
        names = (spec.name,) if size == 1 else tuple(f"{spec.name}[{place}]" for place in range(size))
        return InputFeatures(spec.name, names, size, batched, quantization=quantization)
    image = batched and len(spec.shape) == IMAGE_RANK
    last = spec.shape[-1] if image else None
    colours = ""
    if image and COLOURS in {spec.shape[1], last}:
        colours = "last" if last == COLOURS else "first"
    parts = (*SUMMARY, *(f"channel{place}" for place in range(COLOURS) if colours))
    gap = last if last is not None and last <= IMAGE_RANK else 1
    names = tuple(f"{spec.name}.{part}" for part in parts)
    return InputFeatures(spec.name, names, 0, batched, gap, colours, quantization)


def rows_of_array(features: InputFeatures, array: Array) -> list[tuple[float, ...]]:
    """Give the features of each sample in an input's value, which has the input's shape."""
    quantization = features.quantization if array.dtype.kind in "iu" else None
    if not features.batched:
        return [_row(features, array.reshape(-1), quantization)]
    return [_row(features, sample.reshape(-1), quantization) for sample in array]


def _row(features: InputFeatures, flat: Array, quantization: Quantization | None) -> tuple[float, ...]:
    if features.values:
        return tuple(_numbers(flat, 0, 1, quantization)) if len(flat) == features.values else _none(features)
    step = stride(len(flat))
    picked = _numbers(flat, 0, step, quantization)
    beside = _numbers(flat, features.gap, step, quantization)
    try:
        return _summary(features, picked, beside, step, len(flat))
    except (ValueError, OverflowError, ZeroDivisionError):  # no sample, infinite values of both signs
        return _none(features)


def _numbers(flat: Array, first: int, step: int, quantization: Quantization | None) -> list[float]:
    plain = flat[first::step].tolist()
    if quantization is None:
        return list(map(float, plain))
    scale, zero_point = quantization.scale[0], quantization.zero_point[0]
    return [(stored - zero_point) * scale for stored in plain]


def _summary(
    features: InputFeatures, picked: list[float], beside: list[float], step: int, size: int
) -> tuple[float, ...]:
    count = len(picked)
    mean = math.fsum(picked) / count
    std = math.sqrt(math.fsum([(value - mean) * (value - mean) for value in picked]) / count)
    detail = math.fsum([abs(a - b) for a, b in zip(beside, picked, strict=False)]) / (len(beside) or 1)
    low, high = (math.nan, math.nan) if math.isnan(mean) else (min(picked), max(picked))
    return (mean, std, low, high, detail, *_colours(features.colours, picked, step, size))


def _colours(where: str, picked: list[float], step: int, size: int) -> list[float]:
    if where == "last":  # the step shares no divisor with the size: each third value is of one colour
        place = {start * step % COLOURS: start for start in range(COLOURS)}
        parts = [picked[place[colour] :: COLOURS] for colour in range(COLOURS)]
    elif where == "first":
        ends = [-(-colour * (size // COLOURS) // step) for colour in range(COLOURS + 1)]
        parts = [picked[ends[colour] : ends[colour + 1]] for colour in range(COLOURS)]
    else:
        return []
    return [math.fsum(part) / len(part) for part in parts]


def _none(features: InputFeatures) -> tuple[float, ...]:
    return (math.nan,) * len(features.names)


@lru_cache(maxsize=64)
def stride(size: int) -> int:
    """Give the distance of the values that are picked of ``size``.

    It shares no divisor with the size, so that it meets all columns and channels alike.
    """
    step = max(1, -(-size // PICKED))
    while math.gcd(step, size) != 1 and step < size:
        step += 1
    return step
