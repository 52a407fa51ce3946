"""A network as what happens to its channels: which operators mix them, and which keep each to itself.

The graphs of ONNX, TFLite and OpenVINO become one of these (``onnx_channels`` and its siblings). Operators
that are neither kind, and the model's inputs and outputs, lock the tensors that they touch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edgeml.arrays import Array

Values = NDArray[np.float64]
"""What each channel is, wherever in the picture and whatever the input; NaN: not always the same."""
Marks = NDArray[np.bool_]
Activation = Callable[[Values], Values]
SILENT: Final = 1e-12
"""A weight that is a smaller share of its layer's largest adds nothing that float32 shows. Weight decay
leaves such: 1e-30 in most channels of a published model."""


@dataclass(slots=True)
class Layer:
    """An operator that mixes the channels that it takes: a convolution, a matrix product."""

    name: str
    takes: str
    makes: str
    weights: Array
    outputs_axis: int
    inputs_axis: int
    bias: Array | None
    padded: bool = False
    """It sees zeros beyond the borders, so that a constant other than 0 is none there."""
    activation: Activation = lambda values: values
    may_gain_bias: bool = False

    @property
    def made(self) -> int:
        """The number of channels that it makes."""
        return int(self.weights.shape[self.outputs_axis])

    @property
    def taken(self) -> int:
        """The number of channels that it takes."""
        return int(self.weights.shape[self.inputs_axis])


@dataclass(slots=True)
class Parameter:
    """Numbers of a channelwise operator."""

    values: Array
    axis: int | None = None
    """Along which the channels lie; ``None``: they are the same for all."""

    @property
    def by_channel(self) -> Values:
        """Its values, one for each channel; only where there are as many."""
        return self.values.reshape(-1).astype(np.float64)


@dataclass(slots=True)
class Channelwise:
    """An operator whose channel c comes of the channels c of what it takes, and of nothing else."""

    name: str
    takes: tuple[str, ...]
    makes: str
    value: Callable[[Sequence[Values], Sequence[Parameter]], Values]
    """Gives what it makes of constants."""
    parameters: tuple[Parameter, ...] = ()


Node = Layer | Channelwise


@dataclass(slots=True)
class Graph:
    """The operators in their order, and the tensors whose channels have to stay."""

    nodes: list[Node] = field(default_factory=list)
    locked: set[str] = field(default_factory=set)

    @property
    def layers(self) -> list[Layer]:
        """The operators that mix channels."""
        return [node for node in self.nodes if isinstance(node, Layer)]


def limit(weights: Array) -> float:
    """Give the size up to which weights add nothing; 0 where some are no numbers."""
    found = SILENT * max(float(weights.max(initial=0.0)), -float(weights.min(initial=0.0)))
    return found if np.isfinite(found) else 0.0


def unchanged(taken: Sequence[Values], _: Sequence[Parameter] = ()) -> Values:
    """Give constants on as they are: pooling, reshaping."""
    return taken[0]


def zeros(taken: Sequence[Values], _: Sequence[Parameter] = ()) -> Values:
    """Give only zeros on: what puts others beside them."""
    return np.where(taken[0] == 0.0, 0.0, np.nan)


def unknown(values: Values) -> Values:
    """Give nothing on: an operator whose formula is not known here."""
    return np.full_like(values, np.nan)


def elementwise(activation: Activation) -> Callable[[Sequence[Values], Sequence[Parameter]], Values]:
    """Give what makes of each channel's constant another one."""
    return lambda taken, _: activation(taken[0])


def combined(
    formula: Callable[[Values, Values], Values], activation: Activation
) -> Callable[[Sequence[Values], Sequence[Parameter]], Values]:
    """Give what makes of two tensors, or of a tensor and constants, a third."""

    def value(taken: Sequence[Values], parameters: Sequence[Parameter]) -> Values:
        return activation(formula(*(*taken, *(one.by_channel for one in parameters))[:2]))

    return value


def depthwise(
    *, padded: bool, axis: int, activation: Activation
) -> Callable[[Sequence[Values], Sequence[Parameter]], Values]:
    """Give what a convolution of each channel by itself makes; its weights' channels lie along ``axis``."""

    def value(taken: Sequence[Values], parameters: Sequence[Parameter]) -> Values:
        weights, *bias = parameters
        moved = np.moveaxis(weights.values, axis, 0).astype(np.float64)
        kernels = moved.reshape(moved.shape[0], -1)
        seen = np.where((np.abs(kernels) <= limit(weights.values)).all(axis=1), 0.0, taken[0])
        if padded:
            seen = zeros([seen])
        return activation(kernels.sum(axis=1) * seen + (bias[0].by_channel if bias else 0.0))

    return value
