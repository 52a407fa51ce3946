"""Makes an ONNX model show its intermediate tensors.

A tensor that is quantized shows under its float name the value that the quantized graph goes on with, so
that ONNX Runtime can still run it in integers and names match those of the float model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from edgeml.errors import EngineMissingError, ModelFileError
from edgeml.tensors import Quantization

if TYPE_CHECKING:
    from pathlib import Path

_QUANTIZED_RESULTS: Final = {"QLinearConv": (6, 7), "QLinearMatMul": (6, 7), "QGemm": (7, 8)}
"""Where operators that compute in integers name the scale and zero point of their result."""


@dataclass(frozen=True, slots=True)
class Tap:
    """One tensor to read: what the graph calls it, what it is called outside, how to dequantize it."""

    tensor: str
    name: str
    quantization: Quantization | None = None


def tapped_model(artifact: Path) -> tuple[bytes, tuple[Tap, ...]]:
    """Give the model with every intermediate tensor as an output, and what they are, in graph order.

    Raises:
        EngineMissingError: the package onnx is not installed.
        ModelFileError: it cannot be read.
    """
    try:
        import onnx
    except ModuleNotFoundError as error:
        raise EngineMissingError(
            "intermediate tensors of ONNX models need 'onnx', which is not installed. "
            "Install it: pip install onnx"
        ) from error
    try:
        model = onnx.load(str(artifact))
    except Exception as error:
        raise ModelFileError(f"{artifact}: cannot be read: {error}") from error
    taps = _taps(model.graph, onnx.numpy_helper.to_array)
    present = {output.name for output in model.graph.output}
    for tap in taps:
        if tap.tensor not in present:
            model.graph.output.append(onnx.ValueInfoProto(name=tap.tensor))
    return model.SerializeToString(), taps


def _taps(graph: Any, to_array: Any) -> tuple[Tap, ...]:
    constants = {part.name: part for part in graph.initializer}
    constants |= {
        node.output[0]: attribute.t
        for node in graph.node
        if node.op_type == "Constant"
        for attribute in node.attribute
        if attribute.name == "value"
    }
    outputs = {output.name for output in graph.output}
    fixed = set(constants)
    shown_as = {
        node.input[0]: node.output[0]
        for node in graph.node
        if node.op_type == "QuantizeLinear" and node.input[0] not in outputs
    }
    parameters = {
        tensor: _read(constants, scale, zero, to_array)
        for node in graph.node
        for tensor, scale, zero in _quantized(node)
    }
    quantized_names = set(shown_as.values())
    taps: list[Tap] = []
    for node in graph.node:
        if all(name in fixed or not name for name in node.input):
            fixed |= set(node.output)
            continue
        if node.op_type in {"QuantizeLinear", "DequantizeLinear"}:
            taps += [Tap(name, name, parameters.get(name)) for name in node.output if name in outputs]
            continue
        for name in node.output:
            if not name or name in quantized_names:
                continue
            tensor = shown_as.get(name, name)
            taps.append(Tap(tensor, name, parameters.get(tensor)))
    return tuple(taps)


def _quantized(node: Any) -> list[tuple[str, str, str]]:
    """Give tensor, scale and zero point for what this node says of quantized tensors."""
    names = [*node.input, "", "", ""]
    if node.op_type == "QuantizeLinear":
        return [(node.output[0], names[1], names[2])]
    if node.op_type == "DequantizeLinear":
        return [(names[0], names[1], names[2])]
    if node.op_type in _QUANTIZED_RESULTS:
        scale, zero = _QUANTIZED_RESULTS[node.op_type]
        return [(node.output[0], names[scale], names[zero])] if len(node.input) > scale else []
    return []


def _read(constants: dict[str, Any], scale: str, zero: str, to_array: Any) -> Quantization | None:
    if scale not in constants:
        return None
    scales = to_array(constants[scale]).reshape(-1)
    zeros = to_array(constants[zero]).reshape(-1) if zero in constants else [0] * len(scales)
    if len(scales) != 1:
        return None
    return Quantization((float(scales[0]),), (int(zeros[0]),))
