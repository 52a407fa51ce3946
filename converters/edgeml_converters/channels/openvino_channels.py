"""The channels of an OpenVINO model; they lie in axis 1."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import numpy as np

from edgeml.arrays import Array
from edgeml_converters.channels import activations
from edgeml_converters.channels.flow import (
    Channelwise,
    Graph,
    Layer,
    Node,
    Parameter,
    Values,
    combined,
    depthwise,
    elementwise,
    unchanged,
    zeros,
)
from edgeml_converters.channels.removal import Removal, taken_out

_COMBINING: Final[dict[str, Callable[[Values, Values], Values]]] = {
    "Add": np.add,
    "Multiply": np.multiply,
    "Subtract": np.subtract,
}
_RESHAPES: Final = frozenset({"Reshape", "Squeeze"})
_PORTS: Final = frozenset({"Constant", "Parameter", "Result"})
_MATRIX: Final = 2
_DEPTHWISE_RANK: Final = 5
"""Weights of a 2-D depthwise convolution: groups, outputs and inputs of a group, height, width."""


def removed(model: Any) -> Removal:
    """Take dead channels out of an ``openvino.Model`` in place; one with state is left alone."""
    if model.get_sinks():
        return Removal((), {})
    return taken_out(_Reader(model))


class _Reader:
    """Reads a model's channels, and writes what is left of them."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.operators: dict[str, Any] = {}
        """By the tensor that their node makes."""
        self.biases: dict[str, Any] = {}
        """The Add behind a layer, whose constant its bias is, by the tensor that it makes."""

    def graph(self) -> Graph:
        made = Graph()
        joined: set[str] = set()
        for operator in self.model.get_ordered_ops():
            kind = operator.get_type_name()
            if kind == "Constant" or operator.get_name() in joined:
                continue
            node = None if kind in _PORTS else self._node(operator)
            if node is None:
                made.locked.update(_name(value) for value in operator.input_values())
                made.locked.update(_name(port) for port in operator.outputs())
                continue
            if node.makes in self.biases:
                joined.add(self.biases[node.makes].get_name())
            self.operators[node.makes] = operator
            made.nodes.append(node)
        return made

    def write(self, graph: Graph, found: Removal) -> None:
        for node in graph.nodes:
            operator = self.operators[node.makes]
            if isinstance(node, Layer):
                _store(operator, 1, node.weights)
                if node.bias is not None:
                    _store_bias(self.biases[node.makes], node.bias)
                continue
            places = [place for place in range(operator.get_input_size()) if _is_constant(operator, place)]
            for place, one in zip(places, node.parameters, strict=False):
                _store(operator, place, one.values)
            if operator.get_type_name() == "Reshape" and node.makes in found.channels:
                _reshape(operator, found.channels[node.makes])
        self.model.validate_nodes_and_infer_types()

    def _node(self, operator: Any) -> Node | None:
        kind = operator.get_type_name()
        if _is_constant(operator, 0) or any(port.get_target_inputs() for port in operator.outputs()[1:]):
            return None
        if kind in {"Convolution", "MatMul"}:
            return self._layer(operator)
        if kind == "GroupConvolution":
            return _depthwise(operator)
        if kind in _COMBINING:
            return _combined(operator, combined(_COMBINING[kind], activations.same))
        value = _value(operator)
        return None if value is None else _channelwise(operator, value)

    def _layer(self, operator: Any) -> Layer | None:
        weights = _floats(operator, 1)
        convolves = operator.get_type_name() == "Convolution"
        if weights is None or _rank(operator) < _MATRIX:
            return None
        if convolves:
            axes = (0, 1)
        else:
            turned = operator.get_attributes()
            ranks = {weights.ndim, len(operator.input_value(0).get_partial_shape())}
            if ranks != {_MATRIX} or turned.get("transpose_a"):
                return None
            axes = (0, 1) if turned.get("transpose_b") else (1, 0)
        makes, held = operator.output(0), None
        bias = _bias(operator, weights.shape[axes[0]])
        if bias is not None:
            makes, held = bias.output(0), np.array(_floats(bias, 1)).reshape(-1)
            self.biases[_name(makes)] = bias
        name, takes = operator.get_friendly_name(), _name(operator.input_value(0))
        return Layer(name, takes, _name(makes), weights, *axes, held, padded=convolves and _padded(operator))


def _channelwise(
    operator: Any, value: Callable[..., Values], parameters: tuple[Parameter, ...] = ()
) -> Channelwise:
    takes = (
        value for place, value in enumerate(operator.input_values()) if not _is_constant(operator, place)
    )
    name = operator.get_friendly_name()
    return Channelwise(name, tuple(map(_name, takes)), _name(operator.output(0)), value, parameters)


def _value(operator: Any) -> Callable[..., Values] | None:
    """Give what an operator without weights makes of constants; ``None``: it mixes channels."""
    kind, attributes = operator.get_type_name(), operator.get_attributes()
    known = activations.BY_OPENVINO.get(kind)
    if kind == "Clamp":
        known = partial(activations.clipped, attributes["min"], attributes["max"])
    held = _constant(operator, 1) if operator.get_input_size() > 1 else None
    if kind == "PRelu" and held is not None and held.size == 1:
        known = partial(activations.leaky, float(held.reshape(-1)[0]))
    if known is not None:
        return elementwise(known)
    if kind == "AvgPool":
        floors = attributes.get("rounding_type", "floor") == "floor"
        return unchanged if floors and (attributes.get("exclude-pad") or not _padded(operator)) else zeros
    if kind == "Pad":
        return zeros if _pads_pictures(operator) else None
    shrinks = held is not None and kind in _RESHAPES and _keeps_channels(operator)
    if kind == "ReduceMean" and held is not None:
        rank = len(operator.input_value(0).get_partial_shape())
        shrinks = {int(axis) % rank for axis in held.reshape(-1)}.isdisjoint({0, 1})
    return unchanged if shrinks or kind == "MaxPool" else None


def _depthwise(operator: Any) -> Channelwise | None:
    weights = _floats(operator, 1)
    if weights is None or weights.ndim != _DEPTHWISE_RANK or weights.shape[1:3] != (1, 1):
        return None
    value = depthwise(padded=_padded(operator), axis=0, activation=activations.same)
    return _channelwise(operator, value, (Parameter(weights, 0),))


def _combined(operator: Any, value: Callable[..., Values]) -> Channelwise | None:
    rank, made = _rank(operator), _channels(operator.output(0))
    parameters = []
    for place, port in enumerate(operator.input_values()):
        if not _is_constant(operator, place):
            if len(port.get_partial_shape()) != rank or _channels(port) != made:
                return None
            continue
        held = _floats(operator, place)
        if (
            held is None
            or held.ndim > rank
            or held.size not in {1, ((1,) * (rank - held.ndim) + held.shape)[1]}
        ):
            return None
        parameters.append(Parameter(held, 1 - (rank - held.ndim) if held.size > 1 else None))
    return None if made is None else _channelwise(operator, value, tuple(parameters))


def _bias(operator: Any, channels: int) -> Any | None:
    """Give the Add that puts one constant on each channel, if it alone takes what the operator makes."""
    readers = list(operator.output(0).get_target_inputs())
    if len(readers) != 1 or readers[0].get_index() != 0:
        return None
    follower, rank = readers[0].get_node(), _rank(operator)
    held = _floats(follower, 1) if follower.get_type_name() == "Add" else None
    if held is None or held.size != channels or held.ndim > rank:
        return None
    shape = (1,) * (rank - held.ndim) + held.shape
    return follower if shape[1] == channels else None


def _keeps_channels(operator: Any) -> bool:
    """Say whether channels are in axis 1 before and behind, in the same order."""
    before, after = (
        [None if side.is_dynamic else side.get_length() for side in port.get_partial_shape()]
        for port in (operator.input_value(0), operator.output(0))
    )
    if min(len(before), len(after)) < _MATRIX or before[1] != after[1]:
        return False
    places = [[side for side in one[2:] if side is not None] for one in (before, after)]
    known = None not in (*before[1:], *after[1:])
    return known and math.prod(places[0]) == math.prod(places[1])


def _pads_pictures(operator: Any) -> bool:
    begins, ends = _constant(operator, 1), _constant(operator, 2)
    if begins is None or ends is None or operator.get_attributes().get("pad_mode") != "constant":
        return False
    value = _constant(operator, 3) if operator.get_input_size() > 3 else np.zeros(1)  # noqa: PLR2004
    if value is None or value.any():
        return False
    return not any(one[:2].any() for one in (begins, ends))


def _padded(operator: Any) -> bool:
    attributes = operator.get_attributes()
    if attributes.get("auto_pad", "explicit") not in {"explicit", "valid"}:
        return True
    return any((*attributes.get("pads_begin", ()), *attributes.get("pads_end", ())))


def _rank(operator: Any) -> int:
    shape = operator.output(0).get_partial_shape()
    return 0 if shape.rank.is_dynamic else len(shape)


def _channels(port: Any) -> int | None:
    shape = port.get_partial_shape()
    if shape.rank.is_dynamic or len(shape) < _MATRIX or shape[1].is_dynamic:
        return None
    return int(shape[1].get_length())


def _name(port: Any) -> str:
    return f"{port.get_node().get_name()}:{port.get_index()}"


def _is_constant(operator: Any, place: int) -> bool:
    return bool(operator.input_value(place).get_node().get_type_name() == "Constant")


def _constant(operator: Any, place: int) -> Array | None:
    if not _is_constant(operator, place):
        return None
    return np.array(operator.input_value(place).get_node().get_data())


def _floats(operator: Any, place: int) -> Array | None:
    if operator.get_input_size() <= place:
        return None
    held = _constant(operator, place)
    return held if held is not None and held.dtype == np.float32 else None


def _store(operator: Any, place: int, values: Array) -> None:
    """Put another constant into the place of an operator's input; who else reads the old one keeps it."""
    from openvino import opset13

    old = operator.input_value(place).get_node()
    made = opset13.constant(values, dtype=values.dtype)
    made.set_friendly_name(old.get_friendly_name())
    operator.input(place).replace_source_output(made.output(0))


def _store_bias(operator: Any, values: Array) -> None:
    old = operator.input_value(1).get_node().get_data()
    shape = [-1 if side > 1 else 1 for side in old.shape]
    _store(operator, 1, values.reshape(shape if -1 in shape else old.shape))


def _reshape(operator: Any, count: int) -> None:
    held = _constant(operator, 1)
    if held is not None and held[1] > 0:
        held[1] = count
        _store(operator, 1, held)
