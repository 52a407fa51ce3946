"""The graph of a TFLite file as the Edge TPU compiler's rules look at it, read without any engine.

Fields are named by their numbers in TFLite's schema (tensorflow/lite/schema/schema.fbs).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Final

from edgeml.errors import ModelFileError, UnsafeFileError
from edgeml.flatbuffer import DAMAGE, Bytes, Flatbuffer
from edgeml.formats import check_file
from edgeml.wire import mapped

CUSTOM: Final = "CUSTOM"
MOST_OPERATORS: Final = 100_000
MOST_TENSORS: Final = 200_000
"""More than any model has; a file that claims more would only take memory."""
MOST_RANK: Final = 32
_READ_VALUES: Final = 32
"""Axes, paddings, sizes and strides have no more values than that."""
_BEHIND: Final = 1
"""A buffer's offset up to this says that its data lie in the flatbuffer."""
_INTEGERS: Final = {"int32": ("<i", 4), "int64": ("<q", 8)}
_DTYPES: Final = (
    "float32", "float16", "int32", "uint8", "int64", "string", "bool", "int16", "complex64", "int8",
    "float64", "complex128", "uint64", "resource", "variant", "uint32", "uint16", "int4",
)  # fmt: skip
_OPTIONS: Final[Mapping[str, Mapping[str, tuple[int, str, int]]]] = {
    "AVERAGE_POOL_2D": {"fused_activation": (5, "<b", 0)},
    "MAX_POOL_2D": {"fused_activation": (5, "<b", 0)},
    "CONCATENATION": {"axis": (0, "<i", 0), "fused_activation": (1, "<b", 0)},
    "CONV_2D": {"dilation_x": (4, "<i", 1), "dilation_y": (5, "<i", 1)},
    "DEPTHWISE_CONV_2D": {"dilation_x": (5, "<i", 1), "dilation_y": (6, "<i", 1)},
    "FULLY_CONNECTED": {"weights_format": (1, "<b", 0)},
    "PACK": {"axis": (1, "<i", 0)},
    "STRIDED_SLICE": {"ellipsis_mask": (2, "<i", 0), "new_axis_mask": (3, "<i", 0)},
}
"""Options that rules look at: number, form and default of the field."""
_OPERATORS: Final = """
ADD AVERAGE_POOL_2D CONCATENATION CONV_2D DEPTHWISE_CONV_2D DEPTH_TO_SPACE DEQUANTIZE EMBEDDING_LOOKUP FLOOR
FULLY_CONNECTED HASHTABLE_LOOKUP L2_NORMALIZATION L2_POOL_2D LOCAL_RESPONSE_NORMALIZATION LOGISTIC
LSH_PROJECTION LSTM MAX_POOL_2D MUL RELU RELU_N1_TO_1 RELU6 RESHAPE RESIZE_BILINEAR RNN SOFTMAX
SPACE_TO_DEPTH SVDF TANH CONCAT_EMBEDDINGS SKIP_GRAM CALL CUSTOM EMBEDDING_LOOKUP_SPARSE PAD
UNIDIRECTIONAL_SEQUENCE_RNN GATHER BATCH_TO_SPACE_ND SPACE_TO_BATCH_ND TRANSPOSE MEAN SUB DIV SQUEEZE
UNIDIRECTIONAL_SEQUENCE_LSTM STRIDED_SLICE BIDIRECTIONAL_SEQUENCE_RNN EXP TOPK_V2 SPLIT LOG_SOFTMAX DELEGATE
BIDIRECTIONAL_SEQUENCE_LSTM CAST PRELU MAXIMUM ARG_MAX MINIMUM LESS NEG PADV2 GREATER GREATER_EQUAL
LESS_EQUAL SELECT SLICE SIN TRANSPOSE_CONV SPARSE_TO_DENSE TILE EXPAND_DIMS EQUAL NOT_EQUAL LOG SUM SQRT
RSQRT SHAPE POW ARG_MIN FAKE_QUANT REDUCE_PROD REDUCE_MAX PACK LOGICAL_OR ONE_HOT LOGICAL_AND LOGICAL_NOT
UNPACK REDUCE_MIN FLOOR_DIV REDUCE_ANY SQUARE ZEROS_LIKE FILL FLOOR_MOD RANGE RESIZE_NEAREST_NEIGHBOR
LEAKY_RELU SQUARED_DIFFERENCE MIRROR_PAD ABS SPLIT_V UNIQUE CEIL REVERSE_V2 ADD_N GATHER_ND COS WHERE RANK
ELU REVERSE_SEQUENCE MATRIX_DIAG QUANTIZE MATRIX_SET_DIAG ROUND HARD_SWISH IF WHILE NON_MAX_SUPPRESSION_V4
NON_MAX_SUPPRESSION_V5 SCATTER_ND SELECT_V2 DENSIFY SEGMENT_SUM BATCH_MATMUL
PLACEHOLDER_FOR_GREATER_OP_CODES CUMSUM CALL_ONCE BROADCAST_TO RFFT2D CONV_3D IMAG REAL COMPLEX_ABS
HASHTABLE HASHTABLE_FIND HASHTABLE_IMPORT HASHTABLE_SIZE REDUCE_ALL CONV_3D_TRANSPOSE VAR_HANDLE
READ_VARIABLE ASSIGN_VARIABLE BROADCAST_ARGS RANDOM_STANDARD_NORMAL BUCKETIZE RANDOM_UNIFORM MULTINOMIAL
GELU DYNAMIC_UPDATE_SLICE RELU_0_TO_1 UNSORTED_SEGMENT_PROD UNSORTED_SEGMENT_MAX UNSORTED_SEGMENT_SUM ATAN2
UNSORTED_SEGMENT_MIN SIGN BITCAST BITWISE_XOR RIGHT_SHIFT
"""
OPERATORS: Final = tuple(_OPERATORS.split())
"""BuiltinOperator of TFLite's schema, in the order of its numbers; without StableHLO's, which end it."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """An edge of the graph."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    is_constant: bool
    """The file holds its data."""
    values: tuple[int, ...]
    """Of a short constant of integers."""
    scales: int
    """How many scales it is quantized with; more than one: by channel."""
    is_variable: bool

    @property
    def elements(self) -> int:
        """How many values it has."""
        return prod(self.shape)

    @property
    def yxz(self) -> tuple[int, int, int]:
        """The last three dimensions, 1 for those that are not there: what the Edge TPU lays out."""
        y, x, z = (1, 1, 1, *self.shape)[-3:]
        return y, x, z

    @property
    def leading(self) -> int:
        """Product of the dimensions before the last three."""
        return prod(self.shape[:-3])


@dataclass(frozen=True, slots=True)
class Operator:
    """A node of the graph, in its order of execution."""

    index: int
    kind: str
    """The name of the builtin operator, or ``CUSTOM``."""
    custom_code: str
    version: int
    inputs: tuple[int, ...]
    """Tensors; −1 for an optional one that is left out."""
    outputs: tuple[int, ...]
    options: Mapping[str, int]
    code: int
    """The number of the builtin operator."""


@dataclass(frozen=True, slots=True)
class Graph:
    """The main graph of a file."""

    tensors: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    subgraphs: int
    """How many graphs the file holds; more than one: control flow."""


def read_graph(path: Path) -> Graph:
    """Read a TFLite file's main graph.

    Raises:
        ModelFileError: missing, truncated, damaged, or no TFLite file.
        UnsafeFileError: it unpacks to far more than it holds.
    """
    check_file(path, "tflite")
    with mapped(path) as data:
        return graph_of(path, data)


def graph_of(path: Path, data: Bytes) -> Graph:
    """Read the main graph of a file's content; ``path`` is for messages. Raises as :func:`read_graph`."""
    try:
        graph = _read(Flatbuffer(path, data))
    except DAMAGE as error:
        raise _damaged(path, "an offset leads out of it") from error
    _check_indices(path, graph)
    return graph


def _read(reader: Flatbuffer) -> Graph:
    model = reader.follow(0)
    codes = [_code(reader, table) for table in reader.tables(model, 1)]
    subgraphs = reader.tables(model, 2)
    buffers = reader.tables(model, 4)
    main = subgraphs[0]
    tensors, operators = reader.tables(main, 0), reader.tables(main, 3)
    for what, found, most in (("tensors", tensors, MOST_TENSORS), ("operators", operators, MOST_OPERATORS)):
        if len(found) > most:
            raise UnsafeFileError(f"{reader.path}: {len(found)} {what}; refused above {most}")
    return Graph(
        tuple(_tensor(reader, table, buffers) for table in tensors),
        tuple(_operator(reader, table, index, codes) for index, table in enumerate(operators)),
        reader.numbers(main, 1, "<i"),
        reader.numbers(main, 2, "<i"),
        len(subgraphs),
    )


def _code(reader: Flatbuffer, table: int) -> tuple[int, str, int]:
    old, new = reader.scalar(table, 0, "<b"), reader.scalar(table, 3, "<i")
    return max(old, new), reader.text(table, 1), reader.scalar(table, 2, "<i", 1)


def _tensor(reader: Flatbuffer, table: int, buffers: list[int]) -> Tensor:
    shape = reader.numbers(table, 0, "<i")
    name = reader.text(table, 3)
    if len(shape) > MOST_RANK:
        raise _damaged(reader.path, f"tensor {name!r} has {len(shape)} dimensions")
    kind = reader.scalar(table, 1, "<b")
    dtype = _DTYPES[kind] if 0 <= kind < len(_DTYPES) else f"type {kind}"
    start, size_bytes = _data(reader, buffers[reader.scalar(table, 2, "<I")])
    form, item_bytes = _INTEGERS.get(dtype, ("", 1))
    values: tuple[int, ...] = ()
    if form and start and size_bytes <= _READ_VALUES * item_bytes:
        places = range(start, start + size_bytes // item_bytes * item_bytes, item_bytes)
        values = tuple(reader.number(form, place) for place in places)
    quantization = reader.table(table, 4)
    scales = reader.vector(quantization, 2, 4)[1] if quantization else 0
    is_variable = bool(reader.scalar(table, 5, "<b"))
    return Tensor(name, shape, dtype, size_bytes > 0, values, scales, is_variable)


def _data(reader: Flatbuffer, buffer: int) -> tuple[int, int]:
    """Give start and length of a buffer's data, which may lie behind the flatbuffer."""
    start, size_bytes = reader.vector(buffer, 0, 1)
    if size_bytes:
        return start, size_bytes
    outside, size_bytes = reader.scalar(buffer, 1, "<Q"), reader.scalar(buffer, 2, "<Q")
    return (outside, size_bytes) if outside > _BEHIND else (0, 0)


def _operator(reader: Flatbuffer, table: int, index: int, codes: list[tuple[int, str, int]]) -> Operator:
    code, custom_code, version = codes[reader.scalar(table, 0, "<I")]
    kind = OPERATORS[code] if 0 <= code < len(OPERATORS) else f"builtin code {code}"
    place = reader.table(table, 4)
    options = {
        name: reader.scalar(place, number, form, default) if place else default
        for name, (number, form, default) in _OPTIONS.get(kind, {}).items()
    }
    inputs, outputs = reader.numbers(table, 1, "<i"), reader.numbers(table, 2, "<i")
    return Operator(index, kind, custom_code, version, inputs, outputs, options, code)


def _check_indices(path: Path, graph: Graph) -> None:
    most = len(graph.tensors)
    for operator in graph.operators:
        if not all(-1 <= one < most for one in operator.inputs) or not all(
            0 <= one < most for one in operator.outputs
        ):
            raise _damaged(path, f"operator {operator.index} has a tensor that is not there")
    if not all(0 <= one < most for one in (*graph.inputs, *graph.outputs)):
        raise _damaged(path, "an input or output of the graph is not there")


def _damaged(path: Path, what: str) -> ModelFileError:
    return ModelFileError(f"{path}: damaged: {what}; copy it again from its source")
