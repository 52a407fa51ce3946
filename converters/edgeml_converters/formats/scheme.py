"""Which scheme the numbers of a model file are held in, by its content."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from edgeml.converter import State
from edgeml.errors import EngineMissingError, ModelFileError
from edgeml.formats import check_file, identify
from edgeml.words import Format, Scheme

_ONNX_STATIC: Final = {"QuantizeLinear", "QLinearConv", "QLinearMatMul"}
_ONNX_DYNAMIC: Final = {"DynamicQuantizeLinear", "MatMulInteger", "ConvInteger"}
_ONNX_WIDENING: Final = {"Cast", "DequantizeLinear"}
"""What makes stored integers numbers to compute with."""
_WEIGHT_RANK: Final = 2
"""Weights have at least two dimensions; lesser integer constants are indices and zero points."""
_IR_CONSTANT: Final = re.compile(r'<layer [^>]*type="Const"[^>]*>\s*<data ([^>]*)>')
_ONNX_TYPES: Final = {"FLOAT16": 10, "INT4": 22, "UINT4": 21, "INT8": 3, "UINT8": 2}
"""onnx.TensorProto's numbers."""


def state_of(path: Path) -> State:
    """Say which format and scheme a model file has; the file is checked to be whole.

    Formats that only a framework can read count as float32: their quantizers' results are not read here.

    Raises:
        ModelFileError: missing, damaged, foreign.
        EngineMissingError: what reads the format is not installed: a quantized model must not pass for float.
    """
    format_ = identify(path)
    check_file(path, format_)
    look = _LOOKS.get(format_)
    return State(format_, look(path) if look is not None else "float32")


def _onnx(path: Path) -> Scheme:
    try:
        import onnx
    except ModuleNotFoundError as error:
        raise _missing(path, error) from error
    try:
        graph = onnx.load(path, load_external_data=False).graph
    except Exception as error:
        raise ModelFileError(f"{path}: not a readable ONNX model: {str(error)[:200]}") from error
    kinds = {node.op_type for node in graph.node}
    held = {tensor.name: tensor for tensor in graph.initializer}
    held |= {
        node.output[0]: one.t
        for node in graph.node
        if node.op_type == "Constant"
        for one in node.attribute
        if one.name == "value"
    }
    stored = {tensor.data_type for tensor in held.values()}
    weights = {
        held[name].data_type
        for node in graph.node
        if node.op_type in _ONNX_WIDENING
        for name in node.input
        if name in held and len(held[name].dims) >= _WEIGHT_RANK
    }
    if kinds & _ONNX_DYNAMIC:
        return "int8_dynamic"
    if kinds & _ONNX_STATIC:
        return "int8_static"
    if weights & {_ONNX_TYPES["INT4"], _ONNX_TYPES["UINT4"]}:
        return "int4_weights"
    if "DequantizeLinear" in kinds or weights & {_ONNX_TYPES["INT8"], _ONNX_TYPES["UINT8"]}:
        return "int8_weights"
    return "float16" if _ONNX_TYPES["FLOAT16"] in stored else "float32"


def _tflite(path: Path) -> Scheme:
    try:
        from ai_edge_litert import schema_py_generated as schema
        from ai_edge_litert.tools import flatbuffer_utils
    except ModuleNotFoundError as error:
        raise _missing(path, error) from error
    try:
        model = flatbuffer_utils.read_model(str(path))
        graph = model.subgraphs[0]
    except Exception as error:
        raise ModelFileError(f"{path}: not a readable TFLite model: {str(error)[:200]}") from error
    kinds = schema.TensorType
    constant = {place for place, one in enumerate(graph.tensors) if _has_data(model, one)}
    made = {place for operator in graph.operators for place in operator.outputs}
    activations = {graph.tensors[place].type for place in made - constant if _scaled(graph.tensors[place])}
    weights = {graph.tensors[place].type for place in constant}
    large = {graph.tensors[place].type for place in constant if _scaled(graph.tensors[place])}
    if kinds.INT16 in activations:
        return "int16x8"
    if activations & {kinds.INT8, kinds.UINT8}:
        return "int8_static"
    if kinds.INT4 in large:
        return "int4_weights"
    if kinds.INT8 in large:
        dequantized = any(
            model.operatorCodes[one.opcodeIndex].builtinCode == schema.BuiltinOperator.DEQUANTIZE
            for one in graph.operators
        )
        return "int8_weights" if dequantized else "int8_dynamic"
    return "float16" if kinds.FLOAT16 in weights else "float32"


def _missing(path: Path, error: ModuleNotFoundError) -> EngineMissingError:
    return EngineMissingError(
        f"{path}: cannot tell whether it is quantized without {error.name!r}, which is not installed: "
        "pip install 'edgeml-converters[all]'"
    )


def _openvino(path: Path) -> Scheme:
    text = path.read_text(encoding="utf-8", errors="replace")
    if 'type="FakeQuantize"' in text:
        return "int8_static"
    kinds: set[str] = set()
    for data in _IR_CONSTANT.findall(text):
        values = dict(re.findall(r'(\w+)="([^"]*)"', data))
        kind = values.get("element_type", "")
        if kind == "f16" or values.get("shape", "").count(",") + 1 >= _WEIGHT_RANK:
            kinds.add(kind)
    if kinds & {"i4", "u4", "nf4"}:
        return "int4_weights"
    if kinds & {"i8", "u8"}:
        return "int8_weights"
    return "float16" if "f16" in kinds else "float32"


def _has_data(model: Any, tensor: Any) -> bool:
    data = model.buffers[tensor.buffer].data
    return data is not None and len(data) > 0


def _scaled(tensor: Any) -> bool:
    found = tensor.quantization
    return found is not None and found.scale is not None and len(found.scale) > 0


_LOOKS: Final[dict[Format, Callable[[Path], Scheme]]] = {
    "onnx": _onnx,
    "tflite": _tflite,
    "openvino": _openvino,
}
