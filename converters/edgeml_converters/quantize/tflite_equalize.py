"""The pairs of a TFLite model that cross-layer equalization may change."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

from edgeml_converters.quantize import tflite_model
from edgeml_converters.quantize.equalization import Layer, Pair, equalize

_AXES: Final = {"CONV_2D": (0, 3), "DEPTHWISE_CONV_2D": (3, 3), "FULLY_CONNECTED": (0, 1)}
"""Axes of output and input channels in the weights; of a depthwise convolution with one output per input."""
_HOMOGENEOUS: Final = frozenset({"RELU", "LEAKY_RELU", "MAX_POOL_2D", "AVERAGE_POOL_2D", "MEAN"})
_RESHAPES: Final = frozenset({"RESHAPE", "SQUEEZE"})
_FUSED: Final = (0, 1)
"""Numbers of the schema's ActivationFunctionType that a positive factor passes through: none and RELU."""


def equalized(model: Any) -> int:
    """Equalize a parsed model's main graph in place; gives the number of pairs, 0: nothing changed."""
    graph, kinds = model.subgraphs[0], tflite_model.operators(model)
    readers, buffers = tflite_model.readers(model), tflite_model.buffer_users(model)
    layers = {
        int(operator.outputs[0]): layer
        for operator in graph.operators
        if (layer := _layer(model, kinds[operator.opcodeIndex], operator, buffers)) is not None
    }
    pairs = []
    for index, first in layers.items():
        second = _behind(index, model, kinds, readers, layers)
        if second is not None:
            pairs.append(Pair(first, second))
    if not equalize(pairs):
        return 0
    for operator in graph.operators:
        layer = layers.get(int(operator.outputs[0]))
        if layer is not None:
            tflite_model.store(model, int(operator.inputs[1]), layer.weights)
            if layer.bias is not None:
                tflite_model.store(model, int(operator.inputs[2]), layer.bias)
    return len(pairs)


def _layer(model: Any, kind: str, operator: Any, buffers: Counter[int]) -> Layer | None:
    """Give an operator's arrays, if its weights and bias are its own constants and its channels are plain."""
    if kind not in _AXES or getattr(operator.builtinOptions, "fusedActivationFunction", None) not in _FUSED:
        return None
    graph, axes = model.subgraphs[0], _AXES[kind]
    arrays = [tflite_model.own_floats(model, int(item), buffers) for item in operator.inputs[1:] if item >= 0]
    if not arrays or any(one is None for one in arrays):
        return None
    weights, *bias = (one for one in arrays if one is not None)
    channels = tflite_model.shape_of(graph.tensors[int(operator.inputs[0])])[-1]
    if weights.shape[axes[1]] != channels or any(one.size != weights.shape[axes[0]] for one in bias):
        return None
    name = graph.tensors[int(operator.outputs[0])].name.decode()
    return Layer(name, weights, *axes, bias[0] if bias else None)


def _behind(
    index: int, model: Any, kinds: list[str], readers: Counter[int], layers: Mapping[int, Layer]
) -> Layer | None:
    """Give the layer that alone takes a tensor, as it is or through homogeneous operators."""
    graph = model.subgraphs[0]
    while readers[index] == 1:
        operator = next((one for one in graph.operators if index in map(int, one.inputs)), None)
        if operator is None or int(operator.inputs[0]) != index:
            return None
        made, kind = int(operator.outputs[0]), kinds[operator.opcodeIndex]
        if made in layers:
            return layers[made]
        if not _passes(model, kind, operator):
            return None
        index = made
    return None


def _passes(model: Any, kind: str, operator: Any) -> bool:
    """Say whether an operator gives each channel's factor on, in the last axis."""
    graph = model.subgraphs[0]
    before, after = (
        tflite_model.shape_of(graph.tensors[int(item)]) for item in (operator.inputs[0], operator.outputs[0])
    )
    if before[-1:] != after[-1:]:
        return False
    if kind in _RESHAPES:
        return True
    fused = getattr(operator.builtinOptions, "fusedActivationFunction", 0)
    return kind in _HOMOGENEOUS and fused in _FUSED
