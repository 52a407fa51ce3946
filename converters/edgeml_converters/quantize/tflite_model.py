"""What a quantizer needs to know of a TFLite model in memory: its inputs, what is quantized, which ranges."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from edgeml.arrays import Array
from edgeml.tensors import TensorSpec
from edgeml_converters.quantize.step import Coverage, refuse_quantized

_WEIGHT_OPERATORS: Final = (
    "CONV_2D", "CONV_3D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV", "CONV_3D_TRANSPOSE",
)  # fmt: skip
"""Operators that hold the weights of a network, in their input 1 (input 1 of 3 for transposed ones too)."""
_CLAMPS: Final = {"RELU": 1, "RELU6": 3}
"""Numbers of the schema's ActivationFunctionType; 0 stands for none."""
_MOVING: Final = frozenset({"TRANSPOSE", "RESHAPE"})
"""Operators that move values and change none."""
_DTYPES: Final = {
    0: "float32", 1: "float16", 2: "int32", 3: "uint8", 4: "int64", 6: "bool", 7: "int16", 9: "int8",
    10: "float64", 17: "int4",
}  # fmt: skip
"""Tensor type numbers of the TFLite schema."""
_STORED: Final = frozenset({"uint8", "int8", "int16", "int4"})
_BITS: Final = {"uint8": (0, 255), "int8": (-128, 127), "int16": (-32768, 32767)}


def parse(content: bytes) -> Any:
    """Give the object form (``ModelT``) of a model's bytes."""
    from ai_edge_litert.tools import flatbuffer_utils

    return flatbuffer_utils.read_model_from_bytearray(bytearray(content))


def content(model: Any) -> bytes:
    """Give the bytes of a model in object form."""
    from ai_edge_litert.tools import flatbuffer_utils

    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def fuse_activations(model: Any) -> int:
    """Move RELU and RELU6 into the operators whose outputs they clamp; gives how many were moved.

    Converters from other layouts leave one behind a TRANSPOSE now and then. Its input would need a range
    of its own, wider than what comes of it, and AI Edge Quantizer has no integer RELU6. Tensors that hold
    other values for it get another name: it is by names that ranges are held against the float model.
    """
    kinds = operators(model)
    graph = model.subgraphs[0]
    makers = {int(item): operator for operator in graph.operators for item in operator.outputs}
    takers = readers(model)
    moved = 0
    for operator in list(graph.operators):
        code = _CLAMPS.get(kinds[operator.opcodeIndex])
        last = makers.get(int(operator.inputs[0])) if code is not None else None
        maker = last
        while maker is not None and takers[int(maker.outputs[0])] == 1:
            if kinds[maker.opcodeIndex] not in _MOVING:
                break
            maker = makers.get(int(maker.inputs[0]))
        if last is None or maker is None or takers[int(maker.outputs[0])] != 1:
            continue
        if getattr(maker.builtinOptions, "fusedActivationFunction", None) != 0:
            continue
        maker.builtinOptions.fusedActivationFunction = code
        _rename_between(graph, maker, last, makers)
        last.outputs = operator.outputs
        makers[int(operator.outputs[0])] = last
        graph.operators.remove(operator)
        moved += 1
    if moved:
        _drop_unused_operators(model)
    return moved


def _rename_between(graph: Any, maker: Any, last: Any, makers: Mapping[int, Any]) -> None:
    """Rename what is made from ``maker`` up to, but not with, what ``last`` makes."""
    operator = last
    while operator is not maker:
        tensor = graph.tensors[int(operator.inputs[0])]
        tensor.name += b"/clamped"
        operator = makers[int(operator.inputs[0])]


def _drop_unused_operators(model: Any) -> None:
    """Drop operator codes that no operator has: LiteRT's calibration looks for each in a shorter list."""
    every = [operator for graph in model.subgraphs for operator in graph.operators]
    used = sorted({operator.opcodeIndex for operator in every})
    places = {old: new for new, old in enumerate(used)}
    for operator in every:
        operator.opcodeIndex = places[operator.opcodeIndex]
    model.operatorCodes = [model.operatorCodes[old] for old in used]


def inputs(model: Any) -> tuple[TensorSpec, ...]:
    """Give the inputs in the order of the graph, by their names in the signature."""
    graph = model.subgraphs[0]
    names = {item.tensorIndex: item.name.decode() for item in model.signatureDefs[0].inputs}
    return tuple(
        TensorSpec(names[index], shape_of(graph.tensors[index]), dtype_of(graph.tensors[index]))
        for index in graph.inputs
    )


def shape_of(tensor: Any) -> tuple[int, ...]:
    """Give a tensor's sides; one of 1 for a scalar's."""
    return tuple(int(side) for side in np.atleast_1d(tensor.shape))


def readers(model: Any) -> Counter[int]:
    """Count by tensor how often operators of the main graph take it, and its outputs."""
    graph = model.subgraphs[0]
    found = Counter(int(item) for operator in graph.operators for item in operator.inputs)
    found.update(int(item) for item in graph.outputs)
    return found


def buffer_users(model: Any) -> Counter[int]:
    """Count the tensors of each buffer."""
    return Counter(tensor.buffer for graph in model.subgraphs for tensor in graph.tensors)


def dtype_of(tensor: Any) -> str:
    """Give a tensor's dtype by numpy's name; ``int4`` and unknown types by the schema's."""
    return _DTYPES.get(int(tensor.type), f"type {tensor.type}")


def refuse_if_quantized(model: Any, source: Path) -> None:
    """Refuse a model with tensors that are held as integers, FAKE_QUANT operators, or float16 weights.

    Raises:
        AlreadyQuantizedError: names what was found.
    """
    kinds = operators(model)
    if "FAKE_QUANT" in kinds:
        refuse_quantized(source, "FAKE_QUANT")
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            dtype = dtype_of(tensor)
            if dtype in _STORED and _has_scale(tensor):
                refuse_quantized(source, f"{dtype} tensor {tensor.name.decode()}")
            if dtype == "float16" and _constant(model, tensor):
                refuse_quantized(source, f"float16 weights {tensor.name.decode()}")


def operators(model: Any) -> list[str]:
    """Give the name of each operator code of the model."""
    from ai_edge_litert.tools import flatbuffer_utils

    return [str(flatbuffer_utils.opcode_to_name(model, index)) for index in range(len(model.operatorCodes))]


def activations(model: Any) -> frozenset[int]:
    """Give the indices of the main graph's tensors that hold no constants."""
    tensors = model.subgraphs[0].tensors
    return frozenset(index for index, tensor in enumerate(tensors) if not _constant(model, tensor))


def touching(model: Any, tensors: Sequence[str]) -> tuple[str, ...]:
    """Give the names of what the operators make first that make or take one of the tensors."""
    graph, wanted = model.subgraphs[0], set(tensors)
    names = [tensor.name.decode() for tensor in graph.tensors]
    return tuple(
        names[operator.outputs[0]]
        for operator in graph.operators
        if any(names[item] in wanted for item in (*operator.inputs, *operator.outputs) if item >= 0)
    )


def in_float(model: Any) -> tuple[str, ...]:
    """Give the kinds of operators that take and make float32, sorted."""
    kinds = operators(model)
    found = {
        kinds[operator.opcodeIndex]
        for graph in model.subgraphs
        for operator in graph.operators
        if {"float32"}
        == {dtype_of(graph.tensors[operator.inputs[0]]), dtype_of(graph.tensors[operator.outputs[0]])}
    }
    return tuple(sorted(found))


def coverage(model: Any, dtypes: frozenset[str]) -> Coverage:
    """Count the operators with weights whose weights are held in one of ``dtypes``."""
    kinds = operators(model)
    done, left = 0, []
    for graph in model.subgraphs:
        made = {int(item): operator for operator in graph.operators for item in operator.outputs}
        for operator in graph.operators:
            if kinds[operator.opcodeIndex] not in _WEIGHT_OPERATORS:
                continue
            index = int(operator.inputs[1])
            producer = made.get(index)
            if producer is not None:  # a DEQUANTIZE between the stored weights and the operator
                index = int(producer.inputs[0])
            if dtype_of(graph.tensors[index]) in dtypes:
                done += 1
            else:
                left.append(graph.tensors[operator.outputs[0]].name.decode())
    return Coverage(done + len(left), done, tuple(left))


def ranges(model: Any) -> dict[str, tuple[float, float]]:
    """Give what each per-tensor quantized activation can hold, by tensor name."""
    found: dict[str, tuple[float, float]] = {}
    for tensor in model.subgraphs[0].tensors:
        limits = _BITS.get(dtype_of(tensor))
        if limits is None or not _has_scale(tensor) or _constant(model, tensor):
            continue
        scale, zero = float(tensor.quantization.scale[0]), int(tensor.quantization.zeroPoint[0])
        low, high = ((limit - zero) * scale for limit in limits)
        found[tensor.name.decode()] = (low, high)
    return found


def own_floats(model: Any, index: int, buffers: Counter[int]) -> Array | None:
    """Give a copy of a float32 constant of the main graph; ``None``: it is none, or its buffer is shared.

    ``buffers`` are those that ``buffer_users`` counts.
    """
    tensor = model.subgraphs[0].tensors[index]
    if not _constant(model, tensor) or buffers[tensor.buffer] > 1 or dtype_of(tensor) != "float32":
        return None
    data = bytes(model.buffers[tensor.buffer].data)
    return np.frombuffer(data, np.float32).reshape(shape_of(tensor)).copy()


def store(model: Any, index: int, values: Array) -> None:
    """Put other values in the place of a constant of the main graph."""
    model.buffers[model.subgraphs[0].tensors[index].buffer].data = np.frombuffer(values.tobytes(), np.uint8)


def _has_scale(tensor: Any) -> bool:
    quantization = tensor.quantization
    return quantization is not None and quantization.scale is not None and len(quantization.scale) > 0


def _constant(model: Any, tensor: Any) -> bool:
    data = model.buffers[tensor.buffer].data
    return data is not None and len(data) > 0
