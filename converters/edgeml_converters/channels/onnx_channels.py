"""The channels of an ONNX model; they lie in axis 1."""

from __future__ import annotations

import math
from collections import Counter
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
    "Mul": np.multiply,
    "Sub": np.subtract,
}
_POOLS: Final = frozenset({"MaxPool", "GlobalAveragePool", "GlobalMaxPool"})
_RESHAPES: Final = frozenset({"Reshape", "Flatten", "Squeeze"})
_MATRIX: Final = 2
_UNPADDED: Final = (b"", b"NOTSET", b"VALID")

Shape = tuple[int | None, ...]


def removed(model: Any) -> Removal:
    """Take dead channels out of a ``ModelProto`` in place; one with branches or loops is left alone."""
    if any(item.HasField("g") or item.graphs for node in model.graph.node for item in node.attribute):
        return Removal((), {})
    return taken_out(_Reader(model))


class _Reader:
    """Reads a model's channels, and writes what is left of them."""

    def __init__(self, model: Any) -> None:
        self.proto = model.graph
        self.constants = _constants(model.graph)
        self.shapes = _shapes(model)
        self.readers = Counter(name for node in model.graph.node for name in node.input)
        self.readers.update(port.name for port in model.graph.output)
        self.nodes: dict[str, Any] = {}
        """By what they make first."""

    def graph(self) -> Graph:
        ports = (*self.proto.input, *self.proto.output)
        made = Graph(locked={port.name for port in ports})
        for node in self.proto.node:
            read = self._node(node) if node.domain in {"", "ai.onnx"} and node.input else None
            if read is None:
                made.locked.update([*node.input, *node.output])
            else:
                self.nodes[read.makes] = node
                made.nodes.append(read)
        return made

    def write(self, graph: Graph, found: Removal) -> None:
        for one in graph.nodes:
            node = self.nodes[one.makes]
            if isinstance(one, Layer):
                self._store(node, 1, one.weights)
                if one.bias is not None:
                    self._store(node, 2, one.bias)
                continue
            for place, parameter in zip(self._places(node), one.parameters, strict=False):
                self._store(node, place, parameter.values)
            if one.makes in found.channels:
                self._count(node, found.channels[one.makes])
        stale = [info for info in self.proto.value_info if info.name in found.channels]
        for info in stale:
            self.proto.value_info.remove(info)

    def _node(self, node: Any) -> Node | None:
        kind = node.op_type
        if kind == "Conv":
            return self._convolution(node)
        if kind in {"Gemm", "MatMul"}:
            return self._product(node)
        if kind == "BatchNormalization":
            return self._normalization(node)
        if kind in _COMBINING:
            return self._combined(node, combined(_COMBINING[kind], activations.same))
        value = self._value(node)
        used = [name for name in node.output if name]
        if value is None or len(used) != 1 or node.input[0] in self.constants:
            return None
        return Channelwise(_name(node), (node.input[0],), node.output[0], value)

    def _value(self, node: Any) -> Callable[..., Values] | None:
        """Give what an operator without weights makes of constants; ``None``: it mixes channels."""
        kind, known = node.op_type, activations.BY_ONNX.get(node.op_type)
        limits = self._limits(node) if kind == "Clip" else None
        if kind == "LeakyRelu":
            known = partial(activations.leaky, _attribute(node, "alpha", 0.01))
        if limits is not None:
            known = partial(activations.clipped, *limits)
        if known is not None:
            return elementwise(known)
        if kind == "AveragePool":
            return zeros if _padded(node) or _attribute(node, "ceil_mode", 0) else unchanged
        if kind == "Pad":
            return zeros if self._pads_pictures(node) else None
        shrinks = kind in _RESHAPES and self._keeps_channels(node)
        shrinks = shrinks or (kind == "ReduceMean" and self._spatial_axes(node))
        return unchanged if shrinks or kind in _POOLS else None

    def _convolution(self, node: Any) -> Node | None:
        held = self._weights(node)
        if held is None:
            return None
        weights, bias = held
        groups = _attribute(node, "group", 1)
        if groups == 1:
            return Layer(
                _name(node), node.input[0], node.output[0], weights, 0, 1, bias, _padded(node),
                may_gain_bias=True,
            )  # fmt: skip
        if weights.shape[:2] != (groups, 1):
            return None
        parameters = (Parameter(weights, 0), *([] if bias is None else [Parameter(bias, 0)]))
        value = depthwise(padded=_padded(node), axis=0, activation=activations.same)
        return Channelwise(_name(node), (node.input[0],), node.output[0], value, parameters)

    def _product(self, node: Any) -> Layer | None:
        held = self._weights(node)
        if held is None or held[0].ndim != _MATRIX:
            return None
        weights, bias = held
        if node.op_type == "MatMul" and len(self.shapes.get(node.input[0], ())) != _MATRIX:
            return None
        plain = all(_attribute(node, name, 1.0) == 1.0 for name in ("alpha", "beta"))
        if _attribute(node, "transA", 0) or not plain:
            return None
        axes = (0, 1) if _attribute(node, "transB", 0) else (1, 0)
        if bias is not None and bias.shape != (weights.shape[axes[0]],):
            return None
        may = node.op_type == "Gemm"
        return Layer(_name(node), node.input[0], node.output[0], weights, *axes, bias, may_gain_bias=may)

    def _normalization(self, node: Any) -> Channelwise | None:
        held = [self._floats(name) for name in node.input[1:]]
        if len([name for name in node.output if name]) != 1 or any(one is None for one in held):
            return None
        if _attribute(node, "training_mode", 0):
            return None
        epsilon = _attribute(node, "epsilon", 1e-5)

        def value(taken: Any, parameters: Any) -> Values:
            scale, bias, mean, variance = (one.by_channel for one in parameters)
            given: Values = (taken[0] - mean) / np.sqrt(variance + epsilon) * scale + bias
            return given

        parameters = tuple(Parameter(one, 0) for one in held if one is not None)
        return Channelwise(_name(node), (node.input[0],), node.output[0], value, parameters)

    def _combined(self, node: Any, value: Callable[..., Values]) -> Channelwise | None:
        moving = [name for name in node.input if name not in self.constants]
        shapes = [self.shapes.get(name, ()) for name in (*moving, node.output[0])]
        rank = len(shapes[-1])
        if node.input[0] in self.constants or rank < _MATRIX or shapes[-1][1] is None:
            return None
        if any(len(shape) != rank or shape[1] != shapes[-1][1] for shape in shapes):
            return None
        parameters = []
        for name in node.input[1:]:
            if name not in self.constants:
                continue
            held = self._floats(name)
            if held is None:
                return None
            full = (1,) * (rank - held.ndim) + held.shape
            if held.ndim > rank or held.size not in {1, full[1]}:
                return None
            axis = 1 - (rank - held.ndim)
            parameters.append(Parameter(held, axis if held.size > 1 else None))
        return Channelwise(_name(node), tuple(moving), node.output[0], value, tuple(parameters))

    def _weights(self, node: Any) -> tuple[Array, Array | None] | None:
        """Give the weights and the bias of an operator, if they are float32 constants."""
        held = [self._floats(name) for name in node.input[1:] if name]
        if not held or any(one is None for one in held) or node.input[0] in self.constants:
            return None
        weights, *bias = (one for one in held if one is not None)
        return weights, bias[0] if bias else None

    def _floats(self, name: str) -> Array | None:
        held = self._constant(name)
        return held if held is not None and held.dtype == np.float32 else None

    def _constant(self, name: str) -> Array | None:
        from onnx import numpy_helper

        return numpy_helper.to_array(self.constants[name]).copy() if name in self.constants else None

    def _limits(self, node: Any) -> tuple[float, float] | None:
        limits = [_attribute(node, "min", -math.inf), _attribute(node, "max", math.inf)]
        for place, name in enumerate(node.input[1:]):
            if name:
                held = self._constant(name)
                if held is None:
                    return None
                limits[place] = float(held.reshape(-1)[0])
        return limits[0], limits[1]

    def _keeps_channels(self, node: Any) -> bool:
        """Say whether channels are in axis 1 before and behind, in the same order."""
        before, after = (self.shapes.get(name, ()) for name in (node.input[0], node.output[0]))
        if len(before) < _MATRIX or len(after) < _MATRIX or before[1] != after[1]:
            return False
        sides = (*before[1:], *after[2:])
        if any(side is None for side in sides):
            return False
        return math.prod(map(int, before[2:])) == math.prod(map(int, after[2:]))  # type: ignore[arg-type]

    def _spatial_axes(self, node: Any) -> bool:
        axes = _attribute(node, "axes", None)
        if axes is None and len(node.input) > 1:
            axes = self._constant(node.input[1])
        rank = len(self.shapes.get(node.input[0], ()))
        if axes is None or rank == 0:
            return False
        return {int(axis) % rank for axis in axes}.isdisjoint({0, 1})

    def _pads_pictures(self, node: Any) -> bool:
        pads = _attribute(node, "pads", None)
        if pads is None and len(node.input) > 1:
            pads = self._constant(node.input[1])
        value = _attribute(node, "value", 0.0)
        if len(node.input) > 2 and node.input[2]:  # noqa: PLR2004 - data, pads, value
            held = self._constant(node.input[2])
            value = math.nan if held is None else float(held.reshape(-1)[0])
        if pads is None or len(node.input) > 3 or value != 0.0:  # noqa: PLR2004 - axes of their own
            return False
        if _attribute(node, "mode", b"constant") != b"constant":
            return False
        rank = len(pads) // 2
        return not any(int(pads[place]) for place in (0, 1, rank, rank + 1))

    def _places(self, node: Any) -> list[int]:
        return [place for place, name in enumerate(node.input) if place and self._floats(name) is not None]

    def _store(self, node: Any, place: int, values: Array) -> None:
        """Put a constant into the place of an operator's input; one that others read too stays for them."""
        from onnx import numpy_helper

        name = node.input[place] if place < len(node.input) else ""
        if not name or self.readers[name] > 1:
            self.readers[name] -= 1
            name = f"{node.output[0]}/{place}/trimmed"
            self.readers[name] = 1
            if place < len(node.input):
                node.input[place] = name
            else:
                node.input.append(name)
            self.constants[name] = self.proto.initializer.add()
        self.constants[name].CopyFrom(numpy_helper.from_array(values, name))

    def _count(self, node: Any, count: int) -> None:
        """Put another number of channels where an operator has it."""
        if node.op_type == "Conv":
            next(item for item in node.attribute if item.name == "group").i = count
        held = self._constant(node.input[1]) if node.op_type == "Reshape" else None
        if held is not None and held[1] > 0:
            held[1] = count
            self._store(node, 1, held)


def _constants(graph: Any) -> dict[str, Any]:
    """Give the constants by name; those of Constant nodes become initializers, and no input names one."""
    shown = {port.name for port in graph.output}
    constants = [node for node in graph.node if node.op_type == "Constant" and node.output[0] not in shown]
    for node in constants:
        held = next((item.t for item in node.attribute if item.name == "value"), None)
        if held is not None:
            made = graph.initializer.add()
            made.CopyFrom(held)
            made.name = node.output[0]
            graph.node.remove(node)
    found = {item.name: item for item in graph.initializer}
    for port in [port for port in graph.input if port.name in found]:
        graph.input.remove(port)
    return found


def _shapes(model: Any) -> dict[str, Shape]:
    import onnx

    inferred = onnx.shape_inference.infer_shapes(model).graph
    return {
        port.name: tuple(
            side.dim_value if side.HasField("dim_value") else None for side in port.type.tensor_type.shape.dim
        )
        for port in (*inferred.input, *inferred.value_info, *inferred.output)
    }


def _attribute(node: Any, name: str, default: Any) -> Any:
    from onnx import helper

    return next((helper.get_attribute_value(item) for item in node.attribute if item.name == name), default)


def _padded(node: Any) -> bool:
    return any(_attribute(node, "pads", ())) or _attribute(node, "auto_pad", b"") not in _UNPADDED


def _name(node: Any) -> str:
    return str(node.name or node.output[0])
