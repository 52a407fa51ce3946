"""The pairs of an OpenVINO model that cross-layer equalization may change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from edgeml.arrays import Array
from edgeml_converters.quantize.equalization import Layer, Pair, equalize

_HOMOGENEOUS: Final = frozenset({"Relu", "MaxPool", "AvgPool"})
_DEPTHWISE_RANK: Final = 5
"""Weights of a 2-D depthwise convolution: groups, outputs and inputs of a group, height, width."""


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a layer's arrays stand in the graph."""

    operator: Any
    bias: Any | None
    """The Add behind it, whose constant the bias is."""
    layer: Layer


def equalized(model: Any) -> int:
    """Equalize a model in place; gives the number of pairs, 0 where nothing changed."""
    places = {
        node.get_name(): place for node in model.get_ordered_ops() if (place := _place(node)) is not None
    }
    pairs = []
    for place in places.values():
        second = _behind(place.bias or place.operator, places)
        if second is not None:
            pairs.append(Pair(place.layer, second.layer))
    if not equalize(pairs):
        return 0
    for place in places.values():
        _store(place.operator, place.layer.weights)
        if place.bias is not None and place.layer.bias is not None:
            _store(place.bias, place.layer.bias)
    return len(pairs)


def _place(node: Any) -> _Place | None:
    """Give an operator's arrays, if its weights are its own float32 constant and its channels are plain."""
    kind = node.get_type_name()
    if kind not in {"Convolution", "GroupConvolution", "MatMul"}:
        return None
    weights = _constant(node)
    if weights is None:
        return None
    if kind == "Convolution":
        axes = (0, 1)
    elif kind == "GroupConvolution":
        if weights.ndim != _DEPTHWISE_RANK or weights.shape[1:3] != (1, 1):
            return None
        axes = (0, 0)
    else:
        turned = node.get_attributes()
        if weights.ndim != 2 or turned.get("transpose_a"):  # noqa: PLR2004 - a matrix
            return None
        axes = (0, 1) if turned.get("transpose_b") else (1, 0)
    bias = _bias(node, weights.shape[axes[0]])
    held = _constant(bias) if bias is not None else None
    return _Place(node, bias, Layer(node.get_friendly_name(), weights, *axes, held))


def _bias(node: Any, channels: int) -> Any | None:
    """Give the Add that puts one constant on each channel, if it alone takes what the operator makes."""
    follower = _only_reader(node)
    if follower is None or follower.get_type_name() != "Add":
        return None
    held = _constant(follower)
    rank = len(node.output(0).get_partial_shape())
    if held is None or held.size != channels:
        return None
    axis = 1 if rank > 2 else rank - 1  # noqa: PLR2004 - a matrix product has its channels last
    shape = [1] * held.ndim
    shape[axis - rank] = channels
    return follower if list(held.shape) == shape else None


def _only_reader(node: Any) -> Any | None:
    readers = list(node.output(0).get_target_inputs())
    return readers[0].get_node() if len(readers) == 1 and readers[0].get_index() == 0 else None


def _behind(node: Any, places: dict[str, _Place]) -> _Place | None:
    """Give the layer that alone takes what an operator makes, as it is or through homogeneous operators."""
    follower = _only_reader(node)
    while follower is not None and follower.get_name() not in places:
        if not _passes(follower):
            return None
        follower = _only_reader(follower)
    return places[follower.get_name()] if follower is not None else None


def _passes(node: Any) -> bool:
    """Say whether an operator gives each channel's factor on."""
    kind = node.get_type_name()
    if kind in _HOMOGENEOUS:
        return True
    before, after = (port.get_partial_shape() for port in (node.input_value(0), node.output(0)))
    if before.is_dynamic or after.is_dynamic:
        return False
    if kind == "ReduceMean":
        return bool(before[1] == after[1])
    one_each = list(before)[2:] == [1] * (len(before) - 2)
    return kind in {"Reshape", "Squeeze"} and one_each and list(before)[:2] == list(after)[:2]


def _constant(node: Any) -> Array | None:
    """Give a copy of the float32 constant at input 1, if nothing else takes it."""
    held = node.input_value(1).get_node()
    if held.get_type_name() != "Constant" or held.get_element_type().get_type_name() != "f32":
        return None
    if len(held.output(0).get_target_inputs()) > 1:
        return None
    return np.array(held.get_data(), np.float32)


def _store(node: Any, values: Array) -> None:
    from openvino import opset13

    old = node.input_value(1).get_node()
    made = opset13.constant(values, dtype=np.float32)
    made.set_friendly_name(old.get_friendly_name())
    node.input(1).replace_source_output(made.output(0))
