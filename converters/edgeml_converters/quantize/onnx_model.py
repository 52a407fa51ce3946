"""What a quantizer needs to know of an ONNX model: made ready, its inputs, what is quantized already."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from edgeml.converter import StepRequest
from edgeml.tensors import TensorSpec
from edgeml_converters.formats import onnx_file
from edgeml_converters.quantize.step import Coverage, refuse_quantized

QUANTIZED: Final = frozenset({
    "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "ConvInteger", "MatMulInteger",
    "QLinearConv", "QLinearMatMul", "QGemm", "MatMulNBits", "FakeQuantize", "DynamicQuantizeMatMul",
    "MatMulIntegerToFloat", "QLinearAdd",
})  # fmt: skip
"""Operators that only a quantized model has."""
WEIGHTED: Final = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
"""Operators that hold the weights of a network, as their input 1."""
_CONVERSIONS: Final = frozenset({"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"})
_USING: Final = (WEIGHTED | QUANTIZED) - _CONVERSIONS
_FOLLOWING: Final = frozenset({"Add", "Mul", "Cast", "QuantizeLinear", "DequantizeLinear", "Relu", "Clip"})
"""What may stand between a quantized operator and the tensor that its float form made."""


def prepared(request: StepRequest) -> tuple[Any, tuple[str, ...]]:
    """Give the ``ModelProto`` with opset ≥ 13, static shapes, constants folded and normalisation fused.

    Raises:
        AlreadyQuantizedError: it holds operators or weights of a quantized model.
    """
    import onnx
    import onnxruntime as ort

    refuse_if_quantized(onnx_file.read(request.source), request.source)
    with tempfile.TemporaryDirectory(dir=request.output_dir) as folder:
        ready, folded = Path(folder) / "ready.onnx", Path(folder) / "folded.onnx"
        notes = onnx_file.prepare(request.source, ready, request.input_shapes)
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(folded)
        ort.InferenceSession(str(ready), options, providers=["CPUExecutionProvider"])
        model = onnx.load_model(str(folded))
    _name_nodes(model)
    return onnx.shape_inference.infer_shapes(model), notes


def _name_nodes(model: Any) -> None:
    """Give every operator a name; ONNX asks for none, but quantizers keep their books by it.

    Without names ONNX Runtime's quantizer took all operators for one and quantized only the first.
    """
    taken = {node.name for node in model.graph.node}
    for place, node in enumerate(model.graph.node):
        if not node.name:
            name = f"{node.op_type}_{place}"
            while name in taken:
                name += "_"
            node.name = name
            taken.add(name)


def refuse_if_quantized(model: Any, source: Path) -> None:
    """Refuse a model with quantized operators, or with float16 weights.

    Raises:
        AlreadyQuantizedError: names what was found.
    """
    import onnx

    for node in model.graph.node:
        if node.op_type in QUANTIZED:
            refuse_quantized(source, f"{node.op_type} {node.name}".strip())
    kinds = {onnx.TensorProto.FLOAT16: "float16", onnx.TensorProto.INT8: "int8"}
    for item in model.graph.initializer:
        if item.data_type in kinds:
            refuse_quantized(source, f"{kinds[item.data_type]} weights {item.name}")


def inputs(model: Any) -> tuple[TensorSpec, ...]:
    """Give the inputs that are no weights."""
    import onnx

    return tuple(
        TensorSpec(
            port.name,
            onnx_file.shape_of(port),
            onnx.helper.tensor_dtype_to_np_dtype(port.type.tensor_type.elem_type).name,
        )
        for port in onnx_file.input_ports(model)
    )


def weighted(model: Any) -> dict[str, Any]:
    """Give the operators with weights, by the name of their first output."""
    weights = {item.name for item in model.graph.initializer}
    return {
        node.output[0]: node
        for node in model.graph.node
        if node.op_type in WEIGHTED and len(node.input) > 1 and node.input[1] in weights
    }


def touching(model: Any, tensors: Sequence[str]) -> tuple[str, ...]:
    """Give the names of the operators that make or take one of the tensors."""
    wanted = set(tensors)
    return tuple(node.name for node in model.graph.node if not wanted.isdisjoint([*node.input, *node.output]))


def coverage(float_model: Any, model: Any) -> Coverage:
    """Count the operators with weights of the float model whose weights the other holds in fewer bits."""
    small = stored_small(model)
    total = weighted(float_model)
    left = tuple(
        node.name or node.output[0] for node in total.values() if not small & {node.name, node.output[0]}
    )
    return Coverage(len(total), len(total) - len(left), left)


def stored_small(model: Any) -> set[str]:
    """Give the names of operators whose weights are int8, float16 or in 4 bits, and of what they make.

    A quantizer may rename either: the operator itself, or its output where it removes an activation.
    A bias that became an Add of its own, and a scale or a cast behind an integer product, count as part
    of the operator: the tensor behind them is given too.
    """
    import onnx

    constants = {item.name: item.data_type for item in model.graph.initializer}
    small_types = {onnx.TensorProto.INT8, onnx.TensorProto.UINT8, onnx.TensorProto.FLOAT16}
    held = {name for name, kind in constants.items() if kind in small_types}
    for node in model.graph.node:
        if node.op_type in {"DequantizeLinear", "Cast", "Mul"} and node.input[0] in held:
            held.update(node.output)
    found: set[str] = set()
    for node in model.graph.node:
        if node.op_type in _FOLLOWING:
            if not found.isdisjoint(node.input):
                found.update(node.output)
        elif node.op_type in _USING and not held.isdisjoint(node.input[1:2]):
            found.update([*node.output, *filter(None, [node.name])])
    return found
