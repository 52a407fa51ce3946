"""How many bytes of parameters the compiler will make, and whether they stay on the chip.

The formulas were found by comparing sources with compiled files; there is no documentation of them. Where the
parameters fit they hold to about 1 %; how much room there is depends on the model, from 6 to 8 MiB.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from math import prod
from typing import Final, Literal

from edgeml_converters.coral.graph import Graph, Operator
from edgeml_converters.coral.limits import Node

Verdict = Literal["fits", "borderline", "streams"]
FITS_BYTES: Final = 6 * 1024**2
"""Compiled models that were alone on the chip always had this much room."""
STREAMS_BYTES: Final = 8 * 1024**2
"""The chip's whole memory for parameters."""
TYPICAL_BYTES: Final = 6_900 * 1024
"""The usual room: what more there is is streamed from the host, at every inference."""
CACHED_FEATURES: Final = 8_192
"""A fully connected operator of more inputs is streamed even where there is room."""


@dataclass(frozen=True, slots=True)
class Parameters:
    """Bytes of what the operators on the Edge TPU hold."""

    total_bytes: int
    on_chip_bytes: int
    streamed_bytes: int
    verdict: Verdict


def parameters(graph: Graph, mapped: Collection[int]) -> Parameters:
    """Estimate the parameters of the operators that are mapped.

    Args:
        graph: the model's.
        mapped: indices of operators.
    """
    total = streamed = 0
    for index in mapped:
        size_bytes = operator_bytes(graph, graph.operators[index])
        total += size_bytes
        if _is_streamed(graph, graph.operators[index]):
            streamed += size_bytes
    over = max(0, total - streamed - TYPICAL_BYTES)
    cached = total - streamed
    verdict: Verdict = "fits"
    if cached > FITS_BYTES:
        verdict = "borderline" if cached <= STREAMS_BYTES else "streams"
    elif streamed:
        verdict = "streams"
    return Parameters(total, cached - over, streamed + over, verdict)


def operator_bytes(graph: Graph, operator: Operator) -> int:
    """Estimate the bytes of one operator's parameters."""
    node = Node(graph, operator)
    weights = node.input(1)
    if weights is None or not weights.is_constant or not weights.shape or min(weights.shape) < 0:
        return 0
    shape = weights.shape
    match operator.kind:
        case "CONV_2D" | "TRANSPOSE_CONV":
            kernel = prod(shape[1:-1])
            return _padded(shape[0]) * (kernel * _up(shape[-1], 4) + 8)
        case "FULLY_CONNECTED":
            return _padded(shape[0]) * (_up(prod(shape[1:]), 4) + 8)
        case "DEPTHWISE_CONV_2D":
            source = node.input(0)
            is_multiplied = source is not None and source.yxz[2] != shape[-1]
            return _depthwise(prod(shape[:-1]), shape[-1], weights.scales, is_multiplied=is_multiplied)
        case "ADD" | "MUL" | "SUB" if prod(shape[:-1]) == 1:  # a value for each channel, as 1×1 depthwise
            return _depthwise(1, shape[-1], 1)
        case _:
            return 0


def _depthwise(kernel: int, channels: int, scales: int, *, is_multiplied: bool = False) -> int:
    each = kernel * 4 + 4 if is_multiplied else kernel * (5 if scales > 1 else 3) + 8
    return _up(channels, 16) * each


def _is_streamed(graph: Graph, operator: Operator) -> bool:
    weights = Node(graph, operator).input(1)
    if operator.kind != "FULLY_CONNECTED" or weights is None:
        return False
    return prod(weights.shape[1:]) > CACHED_FEATURES


def _padded(channels: int) -> int:
    """Round up to what the tiles compute at once."""
    return _up(channels, 16) if channels <= 64 else _up(channels, 64)  # noqa: PLR2004 - 16 tiles, 4 lanes


def _up(value: int, step: int) -> int:
    return -(-value // step) * step
