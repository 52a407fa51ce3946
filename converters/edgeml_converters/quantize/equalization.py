"""Cross-layer equalization: brings channels that differ in size together before one range holds them all.

Between two operators with weights and only positively homogeneous ones in between (ReLU, pooling), channel i
may be divided by any s > 0 in the first, bias included, and multiplied by it in the second: in float nothing
changes. With r₁ and r₂ the largest weights of the channel in both, s = √(r₁ / r₂) gives both the same. Nagel
et al., Data-Free Quantization Through Weight Equalization and Bias Correction, ICCV 2019, equation 11.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edgeml.arrays import Array
from edgeml.errors import QuantizationError

ROUNDS: Final = 20
"""Pairs share operators, so that one spoils what another did; it settles in a few rounds."""
SETTLED: Final = 1e-3
"""No channel changes by more than this share: done."""
LARGEST: Final = 1e6
"""No channel is scaled by more at once; float32 holds such products."""

DEAD: Final = 1e-7
"""A channel whose weights are a smaller share of the layer's largest gives and takes nothing that float32
shows; to scale it would blow its bias up. Weight decay leaves many: 1e-30 in half the channels of a published
model."""


@dataclass(slots=True)
class Layer:
    """An operator with weights, as the arrays that equalization changes; both float32."""

    name: str
    weights: Array
    outputs_axis: int
    """The axis of ``weights`` along which its output channels lie."""
    inputs_axis: int
    """That of its input channels; the same for a depthwise convolution."""
    bias: Array | None = None


@dataclass(frozen=True, slots=True)
class Pair:
    """Two layers, the second of which takes what the first makes."""

    first: Layer
    second: Layer


def equalize(pairs: Sequence[Pair]) -> bool:
    """Change the weights and biases of the layers in place; say whether anything was changed."""
    changed = False
    for _ in range(ROUNDS):
        moved = max((_equalize(pair) for pair in pairs), default=0.0)
        if moved <= SETTLED:
            break
        changed = True
    return changed


def _equalize(pair: Pair) -> float:
    """Equalize one pair; gives the largest share by which a channel was changed."""
    first, second = pair.first, pair.second
    made = _largest(first.weights, first.outputs_axis)
    taken = _largest(second.weights, second.inputs_axis)
    if made.size != taken.size:
        return 0.0
    used = (made > DEAD * made.max(initial=0.0)) & (taken > DEAD * taken.max(initial=0.0))
    scales = np.ones_like(made)
    scales[used] = np.clip(np.sqrt(made[used] / taken[used]), 1 / LARGEST, LARGEST)
    first.weights /= _along(scales, first.weights.ndim, first.outputs_axis)
    if first.bias is not None:
        first.bias /= scales.reshape(first.bias.shape).astype(np.float32)
    second.weights *= _along(scales, second.weights.ndim, second.inputs_axis)
    return float(np.abs(scales - 1.0).max(initial=0.0))


def _largest(weights: Array, axis: int) -> NDArray[np.float64]:
    others = tuple(place for place in range(weights.ndim) if place != axis)
    found: NDArray[np.float64] = np.abs(weights).max(axis=others).astype(np.float64)
    return found


def _along(scales: NDArray[np.float64], rank: int, axis: int) -> Array:
    shape = [1] * rank
    shape[axis] = -1
    return scales.reshape(shape).astype(np.float32)


def note(pairs: int) -> str:
    """Give the sentence for the record.

    Raises:
        QuantizationError: nothing was equalized.
    """
    if not pairs:
        raise QuantizationError("no pair of operators has channels to bring together: leave equalize out")
    return f"{pairs} pairs of operators equalized"
