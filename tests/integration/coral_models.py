"""Small quantized TFLite models, written operator by operator, for the tests of Coral rewrites."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools import flatbuffer_utils
from edgeml_converters.coral.graph import OPERATORS

from edgeml.arrays import Array

TYPES = {"float32": 0, "int32": 2, "uint8": 3, "int64": 4, "bool": 6, "int8": 9}


class Built:
    """A model that is being written."""

    def __init__(self) -> None:
        self.chance = np.random.default_rng(7)
        self.model: Any = schema.ModelT()
        self.graph: Any = schema.SubGraphT()
        self.model.version, self.model.operatorCodes, self.model.subgraphs = 3, [], [self.graph]
        self.model.buffers = [schema.BufferT()]
        self.graph.tensors, self.graph.operators = [], []

    def tensor(
        self,
        name: str,
        shape: Sequence[int],
        dtype: str = "int8",
        scale: float | Sequence[float] = 0.05,
        zero: int = 0,
        axis: int = 0,
        signature: Sequence[int] | None = None,
    ) -> int:
        """Add a tensor; floats and int32 are not quantized, unless scales are given one by one."""
        made = schema.TensorT()
        made.name, made.shape, made.type = name.encode(), list(shape), TYPES[dtype]
        made.shapeSignature, made.hasRank = signature, True
        several = not isinstance(scale, float)
        if dtype in {"int8", "uint8"} or several:
            made.quantization = schema.QuantizationParametersT()
            made.quantization.scale = list(scale) if not isinstance(scale, float) else [scale]
            made.quantization.zeroPoint = [zero] * len(made.quantization.scale)
            made.quantization.quantizedDimension = axis
        self.graph.tensors.append(made)
        return len(self.graph.tensors) - 1

    def constant(self, name: str, values: Array, scale: float | Sequence[float] = 0.05, axis: int = 0) -> int:
        """Add a constant."""
        place = self.tensor(name, values.shape, str(values.dtype), scale, axis=axis)
        held = schema.BufferT()
        held.data = np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)
        self.model.buffers.append(held)
        self.graph.tensors[place].buffer = len(self.model.buffers) - 1
        return place

    def weights(self, name: str, *shape: int, axis: int = 0) -> int:
        """Add int8 weights with a scale for each filter."""
        values = self.chance.integers(-127, 128, shape, np.int8)
        return self.constant(name, values, self.scales(shape[axis]), axis)

    def scales(self, count: int) -> list[float]:
        """Give scales that differ."""
        return [0.01 + 0.001 * place for place in range(count)]

    def bias(self, name: str, count: int, scale: float = 0.05) -> int:
        """Add a bias that fits weights of so many filters and an input of this scale."""
        values = self.chance.integers(-500, 500, count, np.int32)
        return self.constant(name, values, [scale * one for one in self.scales(count)])

    def op(
        self, kind: str, inputs: Sequence[int], outputs: Sequence[int], version: int = 1, options: Any = None
    ) -> None:
        """Add an operator; options are of the schema's class."""
        code = schema.OperatorCodeT()
        code.builtinCode, code.version = OPERATORS.index(kind), version
        code.deprecatedBuiltinCode = min(code.builtinCode, 127)
        self.model.operatorCodes.append(code)
        made = schema.OperatorT()
        made.opcodeIndex = len(self.model.operatorCodes) - 1
        made.inputs, made.outputs = list(inputs), list(outputs)
        if options is not None:
            made.builtinOptionsType = getattr(schema.BuiltinOptions, type(options).__name__.removesuffix("T"))
            made.builtinOptions = options
        self.graph.operators.append(made)

    def convolution(
        self, source: int, target: int, weights: int, *more: int, version: int = 3, **fields: int
    ) -> None:
        """Add a CONV_2D of stride 1 that keeps the size."""
        options = schema.Conv2DOptionsT()
        options.strideW = options.strideH = 1
        for name, value in fields.items():
            setattr(options, name, value)
        self.op("CONV_2D", [source, weights, *more], [target], version, options)

    def write(
        self, path: Path, inputs: Sequence[int], outputs: Sequence[int], *, signature: bool = False
    ) -> Path:
        """Write the model to a file."""
        self.graph.inputs, self.graph.outputs = list(inputs), list(outputs)
        if signature:
            self.model.signatureDefs = [self._signature()]
        path.write_bytes(flatbuffer_utils.convert_object_to_bytearray(self.model))
        return path

    def _signature(self) -> Any:
        made = schema.SignatureDefT()
        made.signatureKey = b"serving_default"
        for side in ("inputs", "outputs"):
            items = []
            for number, index in enumerate(getattr(self.graph, side)):
                item = schema.TensorMapT()
                item.name, item.tensorIndex = f"{side[:-1]}_{number}".encode(), index
                items.append(item)
            setattr(made, side, items)
        return made


def float_ports(path: Path, dtype: str = "int8", *, signature: bool = False) -> Path:
    """A convolution between QUANTIZE and DEQUANTIZE."""
    built = Built()
    zero = 3 if dtype == "int8" else 131
    given = built.tensor("image", (1, 6, 6, 4), "float32")
    source = built.tensor("image_q", (1, 6, 6, 4), dtype, 0.05, zero)
    target = built.tensor("score_q", (1, 6, 6, 8), dtype, 0.4, zero)
    score = built.tensor("score", (1, 6, 6, 8), "float32")
    built.op("QUANTIZE", [given], [source])
    if dtype == "int8":
        built.convolution(source, target, built.weights("w", 8, 3, 3, 4), built.bias("b", 8))
    else:
        values = built.chance.integers(0, 256, (8, 3, 3, 4), np.uint8)
        weights = built.constant("w", values, 0.01)
        built.convolution(
            source, target, weights, built.constant("b", np.zeros(8, np.int32), [0.0005]), version=1
        )
    built.op("DEQUANTIZE", [target], [score], 2)
    return built.write(path, [given], [score], signature=signature)


def grouped(path: Path, groups: int = 4, channels: int = 16, filters: int = 8) -> Path:
    """A grouped int8 convolution with a fused RELU between two plain ones."""
    built = Built()
    source = built.tensor("image", (1, 6, 6, 4))
    before = built.tensor("before", (1, 6, 6, channels), zero=-5, scale=0.3)
    target = built.tensor("grouped", (1, 6, 6, filters), zero=-128, scale=0.6)
    score = built.tensor("score", (1, 6, 6, 3), scale=2.0)
    built.convolution(source, before, built.weights("w0", channels, 3, 3, 4), built.bias("b0", channels))
    weights = built.weights("w1", filters, 3, 3, channels // groups)
    bias = built.bias("b1", filters, 0.3)
    built.convolution(before, target, weights, bias, version=6, fusedActivationFunction=1)
    built.convolution(target, score, built.weights("w2", 3, 1, 1, filters), built.bias("b2", 3, 0.6))
    return built.write(path, [source], [score])


def with_custom_operator(path: Path) -> Path:
    """Float ports, and between them an operator that only its maker has."""
    built = Built()
    given = built.tensor("image", (1, 6, 6, 4), "float32")
    source = built.tensor("image_q", (1, 6, 6, 4))
    target = built.tensor("own", (1, 6, 6, 4))
    built.op("QUANTIZE", [given], [source])
    built.op("CUSTOM", [source], [target])
    built.model.operatorCodes[-1].customCode = b"TheirOwn"
    return built.write(path, [given], [target])


def pooled(path: Path, activation: int, zero: int, kind: str = "MAX_POOL_2D") -> Path:
    """A pool with a fused activation (1 RELU, 2 −1 to 1, 3 RELU6) and a convolution behind it."""
    built = Built()
    source = built.tensor("image", (1, 6, 6, 4), zero=zero)
    target = built.tensor("pooled", (1, 3, 3, 4), zero=zero)
    score = built.tensor("score", (1, 3, 3, 2), scale=0.4)
    options = schema.Pool2DOptionsT()
    options.strideW = options.strideH = options.filterWidth = options.filterHeight = 2
    options.fusedActivationFunction = activation
    built.op(kind, [source], [target], 2, options)
    built.convolution(target, score, built.weights("w", 2, 1, 1, 4), built.bias("b", 2))
    return built.write(path, [source], [score])


def transposed(path: Path, activation: int = 1) -> Path:
    """A transposed convolution with a fused activation, which is of version 4."""
    built = Built()
    source = built.tensor("image", (1, 6, 6, 4))
    target = built.tensor("large", (1, 12, 12, 3), zero=-10, scale=0.5)
    size = built.constant("size", np.array([1, 12, 12, 3], np.int32))
    options = schema.TransposeConvOptionsT()
    options.strideW = options.strideH = 2
    options.fusedActivationFunction = activation
    inputs = [size, built.weights("w", 3, 2, 2, 4), source, built.bias("b", 3)]
    built.op("TRANSPOSE_CONV", inputs, [target], 4, options)
    return built.write(path, [source], [target])


def of_newer_versions(path: Path) -> Path:
    """A convolution of version 6 without groups, a requantization of 3, a dense operator without a bias."""
    built = Built()
    source = built.tensor("image", (1, 6, 6, 4))
    large = built.tensor("large", (1, 6, 6, 8), scale=0.5)
    small = built.tensor("small", (1, 6, 6, 8), scale=0.7, zero=4)
    flat = built.tensor("flat", (1, 288), scale=0.7, zero=4)
    score = built.tensor("score", (1, 5), scale=9.0)
    built.convolution(source, large, built.weights("w", 8, 3, 3, 4), built.bias("b", 8), version=6)
    built.op("QUANTIZE", [large], [small], 3)
    built.op("RESHAPE", [small, built.constant("shape", np.array([1, 288], np.int32))], [flat])
    values = built.chance.integers(-127, 128, (5, 288), np.int8)
    options = schema.FullyConnectedOptionsT()
    built.op("FULLY_CONNECTED", [flat, built.constant("dense", values, 0.02)], [score], 6, options)
    return built.write(path, [source], [score])


def of_free_batch(path: Path) -> Path:
    """A flattening as Keras writes it for a free batch: SHAPE, STRIDED_SLICE, PACK, RESHAPE."""
    built = Built()
    source = built.tensor("image", (1, 6, 6, 4), signature=(-1, 6, 6, 4))
    inner = built.tensor("inner", (1, 6, 6, 8), scale=0.5, signature=(-1, 6, 6, 8))
    sides = built.tensor("sides", (4,), "int32")
    batch = built.tensor("batch", (), "int32")
    wanted = built.tensor("wanted", (2,), "int32")
    flat = built.tensor("flat", (1, 1), scale=0.5, signature=(-1, -1))
    score = built.tensor("score", (1, 5), scale=9.0, signature=(-1, 5))
    built.convolution(source, inner, built.weights("w", 8, 3, 3, 4), built.bias("b", 8))
    built.op("SHAPE", [inner], [sides], 1, schema.ShapeOptionsT())
    built.model.subgraphs[0].operators[-1].builtinOptions.outType = TYPES["int32"]
    numbers = [built.constant(f"n{place}", np.array([place], np.int32)) for place in (0, 1)]
    options = schema.StridedSliceOptionsT()
    options.shrinkAxisMask = 1
    built.op("STRIDED_SLICE", [sides, numbers[0], numbers[1], numbers[1]], [batch], 1, options)
    packs = schema.PackOptionsT()
    packs.valuesCount = 2
    built.op("PACK", [batch, built.constant("rest", np.array(288, np.int32))], [wanted], 1, packs)
    built.op("RESHAPE", [inner, wanted], [flat])
    values = built.chance.integers(-127, 128, (5, 288), np.int8)
    bias = built.constant("b1", np.zeros(5, np.int32), [0.01])
    dense = built.constant("dense", values, 0.02)
    built.op("FULLY_CONNECTED", [flat, dense, bias], [score], 4, schema.FullyConnectedOptionsT())
    return built.write(path, [source], [score])


def of_free_batch_with_memory(path: Path) -> Path:
    """As :func:`of_free_batch`, smaller, with a variable: what is written to it nothing computes."""
    built = Built()
    source = built.tensor("image", (1, 6, 6, 4), signature=(-1, 6, 6, 4))
    sides, kept = built.tensor("sides", (4,), "int32"), built.tensor("kept", (), "int32")
    handle, flat = built.tensor("handle", ()), built.tensor("flat", (1, 6, 6, 4))
    built.graph.tensors[handle].type, built.graph.tensors[handle].quantization = 13, None
    names = schema.VarHandleOptionsT()
    names.sharedName = names.container = b"kept"
    built.op("SHAPE", [source], [sides], 1, schema.ShapeOptionsT())
    built.graph.operators[-1].builtinOptions.outType = TYPES["int32"]
    built.op("VAR_HANDLE", [], [handle], 1, names)
    built.op("ASSIGN_VARIABLE", [handle, source], [], 1, schema.AssignVariableOptionsT())
    built.op("READ_VARIABLE", [handle], [flat], 1, schema.ReadVariableOptionsT())
    built.op("RANK", [sides], [kept], 1, schema.RankOptionsT())
    score = built.tensor("score", (1, 6, 6, 4))
    built.op("RESHAPE", [flat, sides], [score])
    return built.write(path, [source], [score, kept])


def of_a_chain_of_constants(path: Path, length: int) -> Path:
    """Additions of which each reads the one before, and the first a constant."""
    built = Built()
    source, target = built.tensor("image", (1, 4), "float32"), built.tensor("score", (1, 4), "float32")
    built.op("RELU", [source], [target])
    before = built.constant("one", np.array([1], np.int32), 1.0)
    built.graph.tensors[before].quantization = None
    for place in range(length):
        after = built.tensor(f"sum{place}", (1,), "int32")
        built.op("ADD", [before, before], [after], 1, schema.AddOptionsT())
        before = after
    last = built.tensor("last", (1,), "int32")
    built.op("NEG", [before], [last])
    return built.write(path, [source], [target, last])


def with_stopper(path: Path, *, signature: bool = False) -> Path:
    """Convolutions, then floats and an operator that the compiler cannot read; two outputs, one early."""
    built = Built()
    source = built.tensor("image", (1, 6, 6, 4))
    inner = built.tensor("inner", (1, 6, 6, 8), scale=0.5)
    score = built.tensor("score", (1, 6, 6, 3), scale=2.0)
    real = built.tensor("real", (1, 6, 6, 3), "float32")
    large = built.tensor("large", (1, 6, 6, 3), "float32")
    offset = built.tensor("offset", (1,), "float32")
    boxes = built.tensor("boxes", (1, 6, 6, 3), "float32")
    built.convolution(source, inner, built.weights("w", 8, 3, 3, 4), built.bias("b", 8))
    built.convolution(inner, score, built.weights("w1", 3, 1, 1, 8), built.bias("b1", 3, 0.5))
    built.op("DEQUANTIZE", [score], [real], 2)
    built.op("RELU_0_TO_1", [real], [large])
    built.op("ADD", [large, offset], [boxes], 1, schema.AddOptionsT())
    return built.write(path, [source, offset], [boxes, score], signature=signature)


def pooled_in_nchw(path: Path, *, keeps: bool) -> Path:
    """A global average as exporters of NCHW models leave it: TRANSPOSE, MEAN over the last two axes."""
    built = Built()
    source = built.tensor("image", (1, 6, 6, 4))
    inner = built.tensor("inner", (1, 6, 6, 8), scale=0.5)
    turned = built.tensor("turned", (1, 8, 6, 6), scale=0.5)
    mean = built.tensor("mean", (1, 8, 1, 1) if keeps else (1, 8), scale=0.1)
    flat = built.tensor("flat", (1, 8), scale=0.1)
    score = built.tensor("score", (1, 5), scale=0.1)
    built.convolution(source, inner, built.weights("w", 8, 3, 3, 4), built.bias("b", 8))
    built.op("TRANSPOSE", [inner, built.constant("order", np.array([0, 3, 1, 2], np.int32))], [turned], 2)
    options = schema.ReducerOptionsT()
    options.keepDims = keeps
    built.op("MEAN", [turned, built.constant("axes", np.array([2, -1], np.int32))], [mean], 2, options)
    if keeps:
        built.op("RESHAPE", [mean, built.constant("flat_shape", np.array([1, 8], np.int32))], [flat])
    dense = built.constant("dense", built.chance.integers(-127, 127, (5, 8), np.int8), 0.02)
    bias = built.constant("b1", np.zeros(5, np.int32), [0.002])
    inputs = [flat if keeps else mean, dense, bias]
    built.op("FULLY_CONNECTED", inputs, [score], 4, schema.FullyConnectedOptionsT())
    return built.write(path, [source], [score])
