"""The pairs of an ONNX model that cross-layer equalization may change."""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

import numpy as np

from edgeml_converters.quantize.equalization import Layer, Pair, equalize

_HOMOGENEOUS: Final = frozenset({
    "Relu", "LeakyRelu", "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "Identity",
})  # fmt: skip
"""Operators that a positive factor of a channel passes through unchanged."""


def equalized(model: Any) -> int:
    """Equalize a prepared ``ModelProto`` in place; gives the number of pairs, 0 where nothing changed."""
    from onnx import numpy_helper

    graph = model.graph
    constants = {item.name: item for item in graph.initializer}
    readers = Counter(name for node in graph.node for name in node.input)
    readers.update(port.name for port in graph.output)
    layers = {
        node.output[0]: layer
        for node in graph.node
        if (layer := _layer(node, constants, readers)) is not None
    }
    pairs = []
    for name, first in layers.items():
        second = _behind(name, graph, readers, layers)
        if second is not None:
            pairs.append(Pair(first, second))
    if not equalize(pairs):
        return 0
    for name, layer in layers.items():
        node = next(node for node in graph.node if node.output[0] == name)
        constants[node.input[1]].CopyFrom(numpy_helper.from_array(layer.weights, node.input[1]))
        if layer.bias is not None:
            constants[node.input[2]].CopyFrom(numpy_helper.from_array(layer.bias, node.input[2]))
    return len(pairs)


def _layer(node: Any, constants: Any, readers: Counter[str]) -> Layer | None:
    """Give an operator's arrays, if its weights and bias are its own constants and its channels are plain."""
    from onnx import numpy_helper

    if node.op_type not in {"Conv", "Gemm"} or len(node.input) < 2:  # noqa: PLR2004 - data and weights
        return None
    own = [name for name in node.input[1:] if name]
    if any(name not in constants or readers[name] > 1 for name in own):
        return None
    weights, *bias = (numpy_helper.to_array(constants[name]).copy() for name in own)
    if weights.dtype != np.float32 or any(one.ndim != 1 for one in bias):
        return None
    attributes = {item.name: item for item in node.attribute}
    if node.op_type == "Conv":
        groups = attributes["group"].i if "group" in attributes else 1
        axes = (0, 1) if groups == 1 else (0, 0) if weights.shape[:2] == (groups, 1) else None
    else:
        plain = all(attributes[name].f == 1.0 for name in ("alpha", "beta") if name in attributes)
        turned = "transA" in attributes and attributes["transA"].i
        by_rows = "transB" in attributes and attributes["transB"].i
        axes = None if turned or not plain else (0, 1) if by_rows else (1, 0)
    if axes is None or any(one.size != weights.shape[axes[0]] for one in bias):
        return None
    return Layer(node.name, weights, *axes, bias[0] if bias else None)


def _behind(name: str, graph: Any, readers: Counter[str], layers: dict[str, Layer]) -> Layer | None:
    """Give the layer that alone takes a tensor, as it is or through homogeneous operators."""
    spatial = True
    while readers[name] == 1:
        node = next((node for node in graph.node if name in node.input), None)
        if node is None or node.input[0] != name:
            return None
        name = node.output[0]
        if name in layers:
            return layers[name]
        if node.op_type in {"GlobalAveragePool", "GlobalMaxPool"}:
            spatial = False
        flat = node.op_type == "Flatten" and not spatial  # one value a channel: the order stays
        if node.op_type not in _HOMOGENEOUS and not flat:
            return None
    return None
