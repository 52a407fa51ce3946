"""The channels of a TFLite model; they lie in the last axis."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final

import numpy as np

from edgeml.arrays import Array
from edgeml_converters.channels import activations
from edgeml_converters.channels.flow import (
    Activation,
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
    unknown,
    zeros,
)
from edgeml_converters.channels.removal import Removal, taken_out
from edgeml_converters.quantize import tflite_model

_MIXING: Final = {"CONV_2D": (0, 3), "FULLY_CONNECTED": (0, 1)}
"""Axes of output and input channels in the weights."""
_POOLS: Final = frozenset({"AVERAGE_POOL_2D", "MAX_POOL_2D"})
_RESHAPES: Final = frozenset({"RESHAPE", "SQUEEZE"})
_COMBINING: Final[dict[str, Callable[[Values, Values], Values]]] = {
    "ADD": np.add,
    "MUL": np.multiply,
    "SUB": np.subtract,
}
_SAME_PADDING: Final = 0


def removed(model: Any) -> Removal:
    """Take dead channels out of a parsed model's main graph in place; models of several are left alone."""
    if len(model.subgraphs) != 1:
        return Removal((), {})
    return taken_out(_Reader(model))


class _Reader:
    """Reads a model's channels, and writes what is left of them."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.main = model.subgraphs[0]
        self.kinds = tflite_model.operators(model)
        self.buffers = tflite_model.buffer_users(model)
        self.readers = tflite_model.readers(model)
        self.operators: dict[str, Any] = {}
        """By what they make first."""

    def graph(self) -> Graph:
        made = Graph(locked={str(int(item)) for item in (*self.main.inputs, *self.main.outputs)})
        for operator in self.main.operators:
            whole = len(operator.inputs) and len(operator.outputs) == 1
            node = self._node(operator) if whole else None
            if node is None:
                made.locked.update(str(int(item)) for item in (*operator.inputs, *operator.outputs))
            else:
                self.operators[node.makes] = operator
                made.nodes.append(node)
        return made

    def write(self, graph: Graph, found: Removal) -> None:
        for node in graph.nodes:
            operator = self.operators[node.makes]
            if isinstance(node, Layer):
                self._store(int(operator.inputs[1]), node.weights)
                if node.bias is not None:
                    self._store_bias(operator, node)
                continue
            places = (
                place for place, item in enumerate(operator.inputs) if self._floats(int(item)) is not None
            )
            for place, one in zip(places, node.parameters, strict=False):
                self._store(int(operator.inputs[place]), one.values)
            if self.kinds[operator.opcodeIndex] == "RESHAPE" and node.makes in found.channels:
                self._reshape(operator, found.channels[node.makes])
        for tensor, count in found.channels.items():
            self._resize(self.main.tensors[int(tensor)], count)

    def _node(self, operator: Any) -> Node | None:
        kind = self.kinds[operator.opcodeIndex]
        takes, makes = int(operator.inputs[0]), int(operator.outputs[0])
        fused = getattr(operator.builtinOptions, "fusedActivationFunction", 0)
        activation = activations.FUSED.get(fused, unknown)
        if not {self._dtype(takes), self._dtype(makes)} <= {"float32"}:
            return None
        if kind in _MIXING:
            return self._layer(operator, activation)
        if kind == "DEPTHWISE_CONV_2D":
            return self._depthwise(operator, activation)
        if kind in _COMBINING:
            return self._combined(operator, combined(_COMBINING[kind], activation))
        value = self._value(kind, operator, activation)
        if value is None or self._channels(takes) != self._channels(makes):
            return None
        return Channelwise(self._name(makes), (str(takes),), str(makes), value)

    def _value(self, kind: str, operator: Any, activation: Activation) -> Callable[..., Values] | None:
        """Give what an operator without weights makes of constants; ``None``: it mixes channels."""
        known = activations.BY_TFLITE.get(kind)
        if kind == "LEAKY_RELU":
            known = partial(activations.leaky, operator.builtinOptions.alpha)
        if kind in _POOLS:
            known = activation
        if known is not None:
            return elementwise(known)
        if kind in _RESHAPES:
            return unchanged
        held = self._constant(int(operator.inputs[1])) if len(operator.inputs) > 1 else None
        rank = len(self._shape(int(operator.inputs[0])))
        if (
            kind == "MEAN"
            and held is not None
            and rank - 1 not in {int(axis) % rank for axis in held.reshape(-1)}
        ):
            return unchanged
        return zeros if kind == "PAD" and held is not None and not held.reshape(-1, 2)[-1].any() else None

    def _layer(self, operator: Any, activation: Activation) -> Layer | None:
        kind = self.kinds[operator.opcodeIndex]
        outputs_axis, inputs_axis = _MIXING[kind]
        takes, makes = int(operator.inputs[0]), int(operator.outputs[0])
        held = self._weights(operator)
        if held is None or getattr(operator.builtinOptions, "weightsFormat", 0) != 0:
            return None
        weights, bias = held
        sides = (weights.shape[outputs_axis], weights.shape[inputs_axis])
        if sides != (self._channels(makes), self._channels(takes)):  # convolutions in groups, for one
            return None
        return Layer(
            self._name(makes), str(takes), str(makes), weights, outputs_axis, inputs_axis, bias,
            self._padded(operator, weights), activation, may_gain_bias=True,
        )  # fmt: skip

    def _depthwise(self, operator: Any, activation: Activation) -> Channelwise | None:
        takes, makes = int(operator.inputs[0]), int(operator.outputs[0])
        held = self._weights(operator)
        if held is None or not self._channels(takes) == self._channels(makes) == held[0].shape[3]:
            return None
        weights, bias = held
        value = depthwise(padded=self._padded(operator, weights), axis=3, activation=activation)
        parameters = (Parameter(weights, 3), *([] if bias is None else [Parameter(bias, 0)]))
        return Channelwise(self._name(makes), (str(takes),), str(makes), value, parameters)

    def _combined(self, operator: Any, value: Callable[..., Values]) -> Channelwise | None:
        sides = [int(item) for item in operator.inputs]
        makes = int(operator.outputs[0])
        constants = [self._floats(item) for item in sides]
        moving = [item for item, held in zip(sides, constants, strict=True) if held is None]
        if any(self._channels(item) != self._channels(makes) for item in moving) or constants[0] is not None:
            return None
        parameters = []
        for item, held in zip(sides, constants, strict=True):
            if held is None:
                continue
            if held.size not in {1, *held.shape[-1:]} or self.readers[item] > 1:
                return None
            parameters.append(Parameter(held, held.ndim - 1 if held.size > 1 else None))
        return Channelwise(self._name(makes), tuple(map(str, moving)), str(makes), value, tuple(parameters))

    def _weights(self, operator: Any) -> tuple[Array, Array | None] | None:
        """Give the weights and the bias of an operator, if they are constants that no other reads."""
        places = [int(item) for item in operator.inputs[1:3] if item >= 0]
        held = [self._floats(item) for item in places]
        if any(one is None for one in held) or any(self.readers[item] > 1 for item in places):
            return None
        weights, *bias = (one for one in held if one is not None)
        return weights, bias[0] if bias else None

    def _padded(self, operator: Any, weights: Array) -> bool:
        if weights.ndim != 4:  # noqa: PLR2004 - a matrix
            return False
        return operator.builtinOptions.padding == _SAME_PADDING and weights.shape[1:3] != (1, 1)

    def _floats(self, index: int) -> Array | None:
        return self._constant(index) if index >= 0 and self._dtype(index) == "float32" else None

    def _constant(self, index: int) -> Array | None:
        tensor = self.main.tensors[index]
        data = self.model.buffers[tensor.buffer].data
        if data is None or len(data) == 0:
            return None
        dtype = np.dtype(tflite_model.dtype_of(tensor))
        return np.frombuffer(bytes(data), dtype).reshape(self._shape(index)).copy()

    def _store(self, index: int, values: Array) -> None:
        tensor = self.main.tensors[index]
        if self.buffers[tensor.buffer] > 1:  # equal constants share one
            self.buffers[tensor.buffer] -= 1
            tensor.buffer = self._new_buffer()
        tflite_model.store(self.model, index, values)
        tensor.shape = np.array(values.shape, np.int32)
        tensor.shapeSignature = None

    def _store_bias(self, operator: Any, layer: Layer) -> None:
        if len(operator.inputs) < 3 or operator.inputs[2] < 0:  # noqa: PLR2004 - data, weights, bias
            from ai_edge_litert.schema_py_generated import TensorT

            tensor = TensorT()
            tensor.name, tensor.buffer = f"{layer.name}/bias".encode(), self._new_buffer()
            self.main.tensors.append(tensor)
            operator.inputs = np.array([*operator.inputs[:2], len(self.main.tensors) - 1], np.int32)
        if layer.bias is not None:
            self._store(int(operator.inputs[2]), layer.bias)

    def _new_buffer(self) -> int:
        from ai_edge_litert.schema_py_generated import BufferT

        self.model.buffers.append(BufferT())
        self.buffers[len(self.model.buffers) - 1] = 1
        return len(self.model.buffers) - 1

    def _reshape(self, operator: Any, count: int) -> None:
        """Put another number of channels into the shape that a RESHAPE asks for."""
        options = operator.builtinOptions
        if options is not None and options.newShape is not None and options.newShape[-1] >= 0:
            options.newShape = np.array([*options.newShape[:-1], count], np.int32)
        if len(operator.inputs) > 1:
            held = self._constant(int(operator.inputs[1]))
            if held is not None and held[-1] >= 0:
                held[-1] = count
                self._store(int(operator.inputs[1]), held)

    @staticmethod
    def _resize(tensor: Any, count: int) -> None:
        tensor.shape = np.array([*tensor.shape[:-1], count], np.int32)
        if tensor.shapeSignature is not None and len(tensor.shapeSignature):
            tensor.shapeSignature = np.array([*tensor.shapeSignature[:-1], count], np.int32)

    def _shape(self, index: int) -> tuple[int, ...]:
        return tuple(int(side) for side in np.atleast_1d(self.main.tensors[index].shape))

    def _channels(self, index: int) -> int:
        shape = self._shape(index)
        return shape[-1] if shape else 0

    def _dtype(self, index: int) -> str:
        return tflite_model.dtype_of(self.main.tensors[index])

    def _name(self, index: int) -> str:
        return str(self.main.tensors[index].name.decode())
