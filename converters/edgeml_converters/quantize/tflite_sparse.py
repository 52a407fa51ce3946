"""Stores weights that are mostly 0 sparsely in a TFLite file: what is not 0, and where in its row it stands.

A DENSIFY operator unpacks them once, when the model is loaded, as TensorFlow's converter has it done;
results are the same to the last bit, and calls take the same time. The form is that of the schema's
SparsityParameters: all dimensions dense but the last, which is compressed sparse rows.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

import numpy as np

from edgeml.arrays import Array
from edgeml_converters.quantize import tflite_model

PACKED: Final = "CONV_2D"
"""The operator whose weights may be packed: XNNPACK refuses an int8 FULLY_CONNECTED whose weights are."""
_DTYPES: Final = {"int8": np.int8, "float32": np.float32}
_OVERHEAD_BYTES: Final = 300
"""Of the operator, the second tensor and its tables."""


def sparsely_stored(content: bytes) -> tuple[bytes, int]:
    """Give the model with each of its weights in the smaller form, and how many are stored sparsely."""
    from ai_edge_litert import schema_py_generated as schema

    model = tflite_model.parse(content)
    graph, kinds = model.subgraphs[0], tflite_model.operators(model)
    buffers = tflite_model.buffer_users(model)
    operators, stored = [], 0
    for operator in graph.operators:
        index = int(operator.inputs[1]) if kinds[operator.opcodeIndex] == PACKED else -1
        weights = _weights(model, index, buffers) if index >= 0 else None
        if weights is not None and _sparse_bytes(weights) < weights.nbytes:
            operators.append(_unpacking(schema, model, index, weights))
            stored += 1
        operators.append(operator)
    if not stored:
        return content, 0
    graph.operators = operators
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.DENSIFY
    code.version = 1
    model.operatorCodes.append(code)
    return tflite_model.content(model), stored


def _weights(model: Any, index: int, buffers: Counter[int]) -> Array | None:
    """Give a constant that is one tensor's alone; ``None``: it is not, or it is packed already."""
    tensor = model.subgraphs[0].tensors[index]
    data, kind = model.buffers[tensor.buffer].data, _DTYPES.get(tflite_model.dtype_of(tensor))
    if kind is None or data is None or not len(data) or buffers[tensor.buffer] > 1:
        return None
    return np.frombuffer(bytes(data), kind).reshape(tflite_model.shape_of(tensor))


def _sparse_bytes(weights: Array) -> int:
    kept = np.count_nonzero(weights)
    rows = weights.size // weights.shape[-1] + 1
    places, ends = (np.dtype(_index_type(most)).itemsize for most in (weights.shape[-1] - 1, int(kept)))
    return int(kept * (weights.itemsize + places) + rows * ends) + _OVERHEAD_BYTES


def _unpacking(schema: Any, model: Any, index: int, weights: Array) -> Any:
    """Put a sparse tensor in the place of a constant, and give the operator that makes the constant of it."""
    graph = model.subgraphs[0]
    dense = graph.tensors[index]
    packed = schema.TensorT()
    packed.shape, packed.type = dense.shape, dense.type  # its scales stand at the dense one
    packed.name = b"sparse_%d" % index
    packed.sparsity = _sparsity(schema, weights)
    packed.buffer, dense.buffer = dense.buffer, 0  # the first buffer is empty in every model
    model.buffers[packed.buffer].data = np.frombuffer(weights[weights != 0].tobytes(), np.uint8)
    graph.tensors.append(packed)
    operator = schema.OperatorT()
    operator.opcodeIndex = len(model.operatorCodes)
    operator.inputs, operator.outputs = [len(graph.tensors) - 1], [index]
    operator.builtinOptionsType = schema.BuiltinOptions.DensifyOptions
    operator.builtinOptions = schema.DensifyOptionsT()
    return operator


def _sparsity(schema: Any, weights: Array) -> Any:
    kept = weights.reshape(-1, weights.shape[-1]) != 0
    last = schema.DimensionMetadataT()
    last.format = schema.DimensionType.SPARSE_CSR
    places, ends = np.nonzero(kept)[1], np.concatenate([[0], np.cumsum(kept.sum(axis=1))])
    last.arrayIndicesType, last.arrayIndices = _vector(schema, places)
    last.arraySegmentsType, last.arraySegments = _vector(schema, ends)
    found = schema.SparsityParametersT()
    found.traversalOrder = np.arange(weights.ndim, dtype=np.int32)
    found.dimMetadata = [_dense(schema, side) for side in weights.shape[:-1]] + [last]
    return found


def _dense(schema: Any, side: int) -> Any:
    made = schema.DimensionMetadataT()
    made.format, made.denseSize = schema.DimensionType.DENSE, side
    return made


def _vector(schema: Any, numbers: Array) -> tuple[int, Any]:
    """Give numbers from 0 on in the smallest of the schema's vectors that holds them, and its number."""
    kind = _index_type(int(numbers.max(initial=0)))
    name = {np.uint8: "Uint8Vector", np.uint16: "Uint16Vector", np.int32: "Int32Vector"}[kind]
    vector = getattr(schema, f"{name}T")()
    vector.values = numbers.astype(kind)
    return getattr(schema.SparseIndexVector, name), vector


def _index_type(largest: int) -> type[np.uint8 | np.uint16 | np.int32]:
    return np.uint8 if largest < 2**8 else np.uint16 if largest < 2**16 else np.int32
