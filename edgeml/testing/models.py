"""Small models of known arithmetic, made with the engines' own builders: no converter, no training.

Each function writes one artifact and gives its path. What the models calculate stands in their docstrings, so
that a test knows the answer without asking another engine.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from edgeml.words import ARTIFACT_FILE, FORMAT_OF_RUNTIME, RuntimeName

if TYPE_CHECKING:
    from pathlib import Path

WIDTH: Final = 16
SCALE: Final = 0.5
ZERO_POINT: Final = 10
QUANTIZATION: Final = {name: {"scale": [SCALE], "zero_point": [ZERO_POINT]} for name in ("x", "y")}


@dataclass(frozen=True, slots=True)
class SmallModels:
    """How to make each small model for one runtime."""

    double: Callable[[Path, int | None], Path]
    """``y[batch, 16] = 2 · x[batch, 16]``, float32; a batch of ``None`` is free."""
    crossed: Callable[[Path], Path]
    """``total[1, 16] = left + right`` and ``product[1, 16] = left · right``, float32."""
    quantized: Callable[[Path], Path]
    """``y[1, 16] = max(x, 0)`` for int8 ``x`` and ``y``, both of scale 0.5 and zero point 10."""


def make_double(folder: Path, runtime: RuntimeName, batch: int | None = 1) -> Path:
    """Write ``y[batch, 16] = 2 · x``, float32."""
    return SMALL_MODELS[runtime].double(folder / ARTIFACT_FILE[FORMAT_OF_RUNTIME[runtime]], batch)


def make_crossed(folder: Path, runtime: RuntimeName) -> Path:
    """Write ``total = left + right`` and ``product = left · right``, all float32 [1, 16]."""
    return SMALL_MODELS[runtime].crossed(folder / ARTIFACT_FILE[FORMAT_OF_RUNTIME[runtime]])


def make_quantized(folder: Path, runtime: RuntimeName) -> Path:
    """Write ``y = max(x, 0)``, int8 [1, 16] with scale 0.5 and zero point 10 on both sides."""
    return SMALL_MODELS[runtime].quantized(folder / ARTIFACT_FILE[FORMAT_OF_RUNTIME[runtime]])


# --- ONNX


def _onnx_file(
    path: Path, nodes: Any, inputs: Any, outputs: Any, constants: Mapping[str, Any], **meta: str
) -> Path:
    import onnx
    from onnx import helper, numpy_helper

    graph = helper.make_graph(
        nodes,
        "small",
        inputs,
        outputs,
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {key.replace("__", "."): value for key, value in meta.items()})
    onnx.save(model, str(path))
    return path


def _onnx_double(path: Path, batch: int | None) -> Path:
    from onnx import TensorProto, helper

    shape = ["batch" if batch is None else batch, WIDTH]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in "xy")
    node = helper.make_node("Mul", ["x", "two"], ["y"])
    return _onnx_file(path, [node], [x], [y], {"two": np.array([2], np.float32)})


def _onnx_crossed(path: Path) -> Path:
    from onnx import TensorProto, helper

    left, right, total, product = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, WIDTH])
        for name in ("left", "right", "total", "product")
    )
    nodes = [
        helper.make_node("Add", ["left", "right"], ["total"]),
        helper.make_node("Mul", ["left", "right"], ["product"]),
    ]
    return _onnx_file(path, nodes, [left, right], [total, product], {})


def _onnx_quantized(path: Path) -> Path:
    from onnx import TensorProto, helper

    x, y = (helper.make_tensor_value_info(name, TensorProto.INT8, [1, WIDTH]) for name in "xy")
    constants = {"scale": np.float32(SCALE), "zero": np.int8(ZERO_POINT)}
    nodes = [
        helper.make_node("DequantizeLinear", ["x", "scale", "zero"], ["real"]),
        helper.make_node("Relu", ["real"], ["positive"]),
        helper.make_node("QuantizeLinear", ["positive", "scale", "zero"], ["y"]),
    ]
    return _onnx_file(path, nodes, [x], [y], constants, edgeml__quantization=json.dumps(QUANTIZATION))


# --- OpenVINO


def _ir_file(path: Path, outputs: Mapping[str, Any], parameters: list[Any], quantization: str = "") -> Path:
    import openvino as ov

    model = ov.Model(list(outputs.values()), parameters, "small")
    for port, name in zip(model.outputs, outputs, strict=True):
        port.set_names({name})
    if quantization:
        model.set_rt_info(quantization, ["edgeml", "quantization"])
    ov.save_model(model, str(path), compress_to_fp16=False)
    return path


def _ir_parameter(name: str, shape: list[int], dtype: Any) -> Any:
    from openvino import opset13

    parameter = opset13.parameter(shape, dtype, name=name)
    parameter.output(0).set_names({name})
    return parameter


def _ir_double(path: Path, batch: int | None) -> Path:
    from openvino import opset13

    x = _ir_parameter("x", [-1 if batch is None else batch, WIDTH], np.float32)
    return _ir_file(path, {"y": opset13.multiply(x, np.float32(2))}, [x])


def _ir_crossed(path: Path) -> Path:
    from openvino import opset13

    left, right = (_ir_parameter(name, [1, WIDTH], np.float32) for name in ("left", "right"))
    results = {"total": opset13.add(left, right), "product": opset13.multiply(left, right)}
    return _ir_file(path, results, [left, right])


def _ir_quantized(path: Path) -> Path:
    from openvino import opset13

    x = _ir_parameter("x", [1, WIDTH], np.int8)
    y = opset13.maximum(x, np.int8(ZERO_POINT))
    return _ir_file(path, {"y": y}, [x], json.dumps(QUANTIZATION))


# --- TFLite


def _tflite_double(path: Path, batch: int | None) -> Path:
    tensors = [_tensor("x", batch), _tensor("y", batch), _tensor("two", None, shape=[1], buffer=1)]
    operators = [("MUL", [0, 2], [1])]
    return _tflite_file(path, tensors, operators, [0], [1], np.array([2], np.float32).tobytes())


def _tflite_crossed(path: Path) -> Path:
    tensors = [_tensor(name, 1) for name in ("left", "right", "total", "product")]
    return _tflite_file(path, tensors, [("ADD", [0, 1], [2]), ("MUL", [0, 1], [3])], [0, 1], [2, 3], b"")


def _tflite_quantized(path: Path) -> Path:
    tensors = [_tensor("x", 1, quantized=True), _tensor("y", 1, quantized=True)]
    return _tflite_file(path, tensors, [("RELU", [0], [1])], [0], [1], b"")


def _tensor(
    name: str, batch: int | None, *, shape: list[int] | None = None, buffer: int = 0, quantized: bool = False
) -> Any:
    from ai_edge_litert import schema_py_generated as schema

    tensor = schema.TensorT()
    tensor.name = name.encode()
    tensor.shape = shape or [batch or 1, WIDTH]
    if shape is None and batch is None:
        tensor.shapeSignature = [-1, WIDTH]
    tensor.type = schema.TensorType.INT8 if quantized else schema.TensorType.FLOAT32
    tensor.buffer = buffer
    if quantized:
        tensor.quantization = schema.QuantizationParametersT()
        tensor.quantization.scale, tensor.quantization.zeroPoint = [SCALE], [ZERO_POINT]
    return tensor


def _tflite_file(
    path: Path,
    tensors: list[Any],
    operators: list[tuple[str, list[int], list[int]]],
    inputs: list[int],
    outputs: list[int],
    constant: bytes,
) -> Path:
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model, graph = schema.ModelT(), schema.SubGraphT()
    model.version, model.subgraphs = 3, [graph]
    graph.tensors, graph.inputs, graph.outputs, graph.operators = tensors, inputs, outputs, []
    model.buffers = [schema.BufferT(), schema.BufferT()]
    model.buffers[1].data = list(constant) or None
    model.operatorCodes = []
    for place, (kind, sources, results) in enumerate(operators):
        code, operator = schema.OperatorCodeT(), schema.OperatorT()
        code.builtinCode = code.deprecatedBuiltinCode = getattr(schema.BuiltinOperator, kind)
        code.version = 2 if kind == "RELU" else 1
        operator.opcodeIndex, operator.inputs, operator.outputs = place, sources, results
        if kind in {"ADD", "MUL"}:
            options = f"{kind.title()}Options"
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, options)
            operator.builtinOptions = getattr(schema, f"{options}T")()
        model.operatorCodes.append(code)
        graph.operators.append(operator)
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(builder.Output())
    return path


SMALL_MODELS: Final[dict[RuntimeName, SmallModels]] = {
    "litert": SmallModels(_tflite_double, _tflite_crossed, _tflite_quantized),
    "onnxruntime": SmallModels(_onnx_double, _onnx_crossed, _onnx_quantized),
    "openvino": SmallModels(_ir_double, _ir_crossed, _ir_quantized),
}
