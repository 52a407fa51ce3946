"""What a quantizer needs to know of an OpenVINO model: its inputs, what is quantized, which ranges."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from edgeml.tensors import TensorSpec
from edgeml_converters.quantize.step import Coverage, refuse_quantized

_WEIGHTED: Final = frozenset({
    "Convolution", "GroupConvolution", "ConvolutionBackpropData", "GroupConvolutionBackpropData", "MatMul",
})  # fmt: skip
"""Operators that hold the weights of a network, as their input 1."""
_MOVING: Final = frozenset({
    "Broadcast", "Clamp", "Concat", "DepthToSpace", "Gather", "MaxPool", "Pad", "Relu", "Reshape", "Split",
    "Squeeze", "StridedSlice", "Tile", "Transpose", "Unsqueeze", "VariadicSplit",
})  # fmt: skip
"""Operators whose results are values that they took."""
_PORTS: Final = frozenset({"Parameter", "Constant", "Result"})
_STORED: Final = frozenset({"i8", "u8", "i4", "u4", "nf4"})
_PASSING: Final = frozenset({"Convert", "Multiply", "Subtract", "Reshape", "Transpose"})
"""What stands between stored weights and the operator that uses them."""


def inputs(model: Any) -> tuple[TensorSpec, ...]:
    """Give the inputs in the model's order."""
    return tuple(
        TensorSpec(
            port.get_any_name(),
            tuple(None if side.is_dynamic else side.get_length() for side in port.get_partial_shape()),
            np.dtype(port.get_element_type().to_dtype()).name,
        )
        for port in model.inputs
    )


def refuse_if_quantized(model: Any, source: Path) -> None:
    """Refuse a model with FakeQuantize operators or weights held as integers or in float16.

    Raises:
        AlreadyQuantizedError: names what was found.
    """
    for node in model.get_ordered_ops():
        if node.get_type_name() == "FakeQuantize":
            refuse_quantized(source, f"FakeQuantize {node.get_friendly_name()}")
        if node.get_type_name() in _WEIGHTED:
            weights = _weights(node)
            kind = weights.get_element_type().get_type_name() if weights is not None else ""
            if kind in _STORED or kind == "f16":
                refuse_quantized(source, f"{kind} weights of {node.get_friendly_name()}")


def touching(model: Any, tensors: Sequence[str]) -> tuple[str, ...]:
    """Give the names of the operators that make or take one of the tensors, or its values moved elsewhere.

    NNCF quantizes values once, before or behind the operators that move them; where it may not before, it
    would behind.
    """
    wanted, found = set(tensors), []
    for node in model.get_ordered_ops():
        taken = _names(port.get_source_output() for port in node.inputs())
        made, kind = _names(node.outputs()), node.get_type_name()
        if kind in _MOVING and not wanted.isdisjoint(taken):
            wanted |= made
        if kind not in _PORTS and not wanted.isdisjoint(taken | made):
            found.append(node.get_friendly_name())
    return tuple(found)


def _names(ports: Iterable[Any]) -> set[str]:
    return {name for port in ports for name in (*port.get_names(), port.get_node().get_friendly_name())}


def coverage(model: Any, *, kinds: frozenset[str] = _STORED) -> Coverage:
    """Count the operators with constant weights, and those whose weights are held in one of ``kinds``."""
    done, left = 0, []
    for node in model.get_ordered_ops():
        weights = _weights(node) if node.get_type_name() in _WEIGHTED else None
        if weights is None:
            continue
        if weights.get_element_type().get_type_name() in kinds:
            done += 1
        else:
            left.append(node.get_friendly_name())
    return Coverage(done + len(left), done, tuple(left))


def ranges(model: Any) -> dict[str, tuple[float, float]]:
    """Give the range of each per-tensor FakeQuantize on an activation, by the name of the tensor."""
    found: dict[str, tuple[float, float]] = {}
    for node in model.get_ordered_ops():
        if node.get_type_name() != "FakeQuantize":
            continue
        low, high = (node.input_value(port).get_node() for port in (1, 2))
        if {low.get_type_name(), high.get_type_name()} == {"Constant"} and low.get_data().size == 1:
            port = node.input_value(0)
            name = port.get_any_name() if port.get_names() else port.get_node().get_friendly_name()
            found[name] = (float(low.get_data().item()), float(high.get_data().item()))
    return found


def _weights(node: Any) -> Any | None:
    """Give the Constant behind an operator's input 1, if it is one."""
    current = node.input_value(1).get_node()
    while current.get_type_name() in _PASSING:
        current = current.input_value(0).get_node()
    return current if current.get_type_name() == "Constant" else None
