"""ONNX with weights held small: float16, int8 with a scale per channel, 4 bits in MatMulNBits."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from edgeml.errors import NothingToQuantizeError
from edgeml_converters.quantize import onnx_model

BLOCK_SIZE: Final = 32
"""Weights that share a scale in MatMulNBits; the block that ONNX Runtime's CPU kernels like best."""
MATMUL_SHARE_MIN: Final = 0.5
"""Share of the weights that must be in matrix products for a scheme that covers nothing else."""


def float16(model: Any, _: str) -> Any:
    """Give the model with float16 inside, and its inputs and outputs as they were."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    return convert_float_to_float16(model, keep_io_types=True)


def int8(model: Any, _: str) -> Any:
    """Hold the weights of convolutions and matrix products as int8, one scale for each output channel.

    A Cast and a Mul make them float32 again. ONNX Runtime folds these when it loads the model, so that
    inference is as quick as float; behind a DequantizeLinear, which it keeps, it was 2 to 6 times slower.
    """
    from onnx import TensorProto, helper, numpy_helper

    constants = {item.name: item for item in model.graph.initializer}
    places: dict[str, int] = {}
    for node in onnx_model.weighted(model).values():
        places.setdefault(node.input[1], _channel_axis(node, len(constants[node.input[1]].dims)))
    for name, axis in places.items():
        values = numpy_helper.to_array(constants[name])
        if values.dtype != np.float32:
            continue
        stored, scale = _symmetric(values, axis)
        constants[name].CopyFrom(numpy_helper.from_array(stored, f"{name}_int8"))
        model.graph.initializer.append(numpy_helper.from_array(scale, f"{name}_scale"))
        steps = f"{name}_steps"
        model.graph.node.insert(0, helper.make_node("Mul", [steps, f"{name}_scale"], [name], f"{name}_real"))
        cast = helper.make_node("Cast", [f"{name}_int8"], [steps], steps, to=TensorProto.FLOAT)
        model.graph.node.insert(0, cast)
    return model


def dynamic_int8(model: Any, step: str) -> Any:
    """Quantize matrix products, with their inputs quantized as they come.

    Convolutions are left alone: ONNX Runtime's ConvInteger was 2 to 17 times slower than float on the
    keyword-spotting model, ResNet-8 and MobileNetV2, and left MobileNetV2 with 1.4 % top-1.

    Raises:
        NothingToQuantizeError: less than half of the weights are in matrix products.
    """
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.onnx_quantizer import ONNXQuantizer
    from onnxruntime.quantization.quant_utils import QuantizationMode

    model = _matmuls(model, step)
    quantizer = ONNXQuantizer(
        model,
        True,  # per channel  # noqa: FBT003 - positional only by custom: nine parameters in this order
        False,  # reduce_range  # noqa: FBT003
        QuantizationMode.IntegerOps,
        False,  # static  # noqa: FBT003
        QuantType.QInt8,
        QuantType.QUInt8,
        None,
        [],
        [],
        ["MatMul"],
        {"MatMulConstBOnly": True},
    )
    quantizer.quantize_model()
    return quantizer.model.model


def int4(model: Any, step: str) -> Any:
    """Hold the weights of matrix products in 4 bits, ``BLOCK_SIZE`` of them to a scale.

    Raises:
        NothingToQuantizeError: less than half of the weights are in matrix products.
    """
    from onnx import helper, numpy_helper

    model = _matmuls(model, step)
    constants = {item.name: item for item in model.graph.initializer}
    places = {node.name: place for place, node in enumerate(model.graph.node)}
    for node in onnx_model.weighted(model).values():
        name = node.input[1]
        if node.op_type != "MatMul" or len(constants[name].dims) != 2:  # noqa: PLR2004 - a matrix
            continue
        depth, width = constants[name].dims
        packed, scale = _nibbles(numpy_helper.to_array(constants[name]))
        model.graph.initializer.extend(
            [numpy_helper.from_array(packed, f"{name}_int4"), numpy_helper.from_array(scale, f"{name}_scale")]
        )
        small = helper.make_node(
            "MatMulNBits",
            [node.input[0], f"{name}_int4", f"{name}_scale"],
            list(node.output),
            name=node.name,
            domain="com.microsoft",
            K=depth,
            N=width,
            bits=4,
            block_size=BLOCK_SIZE,
        )
        model.graph.node[places[node.name]].CopyFrom(small)
    _drop_unused(model)
    if not any(item.domain == "com.microsoft" for item in model.opset_import):
        model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return model


def _nibbles(values: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Pack a matrix [K, N] for MatMulNBits: [N, blocks, BLOCK_SIZE / 2] bytes and [N · blocks] scales.

    The value farthest from 0 becomes −8, the one number that has no counterpart; 0 is stored as 8.
    """
    depth, width = values.shape
    blocks = -(-depth // BLOCK_SIZE)
    padded = np.zeros((width, blocks * BLOCK_SIZE), np.float32)
    padded[:, :depth] = values.T
    grouped = padded.reshape(width, blocks, BLOCK_SIZE)
    farthest = np.take_along_axis(grouped, np.abs(grouped).argmax(-1, keepdims=True), -1)
    scale = np.where(farthest == 0, 1.0, farthest / -8.0).astype(np.float32)
    stored = (np.clip(np.rint(grouped / scale), -8, 7) + 8).astype(np.uint8)
    return stored[..., 0::2] | (stored[..., 1::2] << 4), scale.reshape(-1)


def _drop_unused(model: Any) -> None:
    used = {name for node in model.graph.node for name in node.input}
    kept = [item for item in model.graph.initializer if item.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)


def _matmuls(model: Any, step: str) -> Any:
    """Give the model with Gemm as MatMul and Add, if enough of its weights are there."""
    from onnxruntime.quantization.onnx_model import ONNXModel

    sizes = {item.name: int(np.prod(item.dims)) for item in model.graph.initializer}
    operators = onnx_model.weighted(model).values()
    total = sum(sizes[node.input[1]] for node in operators)
    products = [node for node in operators if node.op_type in {"MatMul", "Gemm"}]
    held = sum(sizes[node.input[1]] for node in products)
    if total == 0 or held / total < MATMUL_SHARE_MIN:
        raise NothingToQuantizeError(
            f"{step}: {len(products)} of {len(operators)} operators could be quantized, with "
            f"{100 * held / max(total, 1):.0f} % of the weights: ONNX Runtime has this scheme for matrix "
            f"products only, and its convolutions would be slower than float; use int8_static or int8_weights"
        )
    wrapped = ONNXModel(model)
    wrapped.replace_gemm_with_matmul()
    return wrapped.model


def _channel_axis(node: Any, rank: int) -> int:
    """Give the axis of the output channels in a weight tensor."""
    if node.op_type == "Conv":
        return 0
    if node.op_type == "Gemm":
        transposed = any(item.name == "transB" and item.i for item in node.attribute)
        return 0 if transposed else 1
    return 1 if node.op_type == "ConvTranspose" else rank - 1


def _symmetric(values: np.ndarray[Any, Any], axis: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    others = tuple(place for place in range(values.ndim) if place != axis)
    largest = np.abs(values).max(axis=others, keepdims=True)
    scale = np.where(largest > 0, largest / 127.0, 1.0).astype(np.float32)
    return np.clip(np.rint(values / scale), -127, 127).astype(np.int8), scale
