"""Bias correction for a TFLite model whose weights are int8; see ``bias`` for what it does.

The biases of the quantized model are changed, in steps of their own scale: what is folded in meets no other
rounding. An operator without a bias, one whose bias another has too, and one in float are left alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgeml.arrays import Array
from edgeml.errors import QuantizationError
from edgeml_converters.quantize import aeq, tflite_model
from edgeml_converters.quantize.bias import ChannelMeans
from edgeml_converters.quantize.step import CheckedSamples

_CORRECTED: Final = frozenset({"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"})
_BIASES: Final[Mapping[str, type[np.int32 | np.int64]]] = {"int32": np.int32, "int64": np.int64}


def input_means(model: Any, samples: CheckedSamples) -> dict[int, NDArray[np.float64]]:
    """Run a parsed float model and give channel means of what operators with weights take, by tensor."""
    return channel_means(model, (int(operator.inputs[0]) for operator in _operators(model)), samples)


def channel_means(
    model: Any, tensors: Iterable[int], samples: CheckedSamples
) -> dict[int, NDArray[np.float64]]:
    """Run a parsed float model and give the mean of each channel, the last axis, of tensors."""
    found = {index: ChannelMeans(axis=-1) for index in tensors}
    for engine in aeq.runs(tflite_model.content(model), tflite_model.inputs(model), samples):
        for index, means in found.items():
            means.add(engine.get_tensor(index))
    return {index: means.value() for index, means in found.items()}


def correct(model: Any, quantized: Any, means: Mapping[int, NDArray[np.float64]]) -> None:
    """Correct the biases of the parsed ``quantized``, made from the parsed float ``model``, in place.

    Raises:
        QuantizationError: the two do not have the same operators with weights in the same order.
    """
    before, after = _operators(model), _operators(quantized)
    shapes = [
        [tflite_model.shape_of(one.subgraphs[0].tensors[int(operator.inputs[1])]) for operator in operators]
        for one, operators in ((model, before), (quantized, after))
    ]
    if shapes[0] != shapes[1]:
        raise QuantizationError("the quantizer moved operators with weights; leave bias_correction out")
    graph = quantized.subgraphs[0]
    readers = tflite_model.readers(quantized)
    for real, held in zip(before, after, strict=True):
        weights = _stored(quantized, int(held.inputs[1]))
        place = int(held.inputs[2]) if len(held.inputs) > 2 else -1  # noqa: PLR2004 - the third input
        if weights is None or place < 0 or readers[place] > 1:
            continue
        error = weights - _numbers(model, int(real.inputs[1]), np.float32)
        shift = _shift(error, means[int(real.inputs[0])])
        if shift is not None:
            _subtract(quantized, graph.tensors[place], shift)


def _operators(model: Any) -> list[Any]:
    """Give the main graph's operators whose biases can be corrected, in their order."""
    kinds = tflite_model.operators(model)
    return [one for one in model.subgraphs[0].operators if kinds[one.opcodeIndex] in _CORRECTED]


def _shift(error: NDArray[np.float64], means: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Give what the weights' ``error`` adds to each output channel; ``None`` where it cannot be told."""
    if error.ndim == 2:  # noqa: PLR2004 - a matrix [outputs, inputs]
        return np.asarray(error @ means) if error.shape[1] == means.size else None
    outputs, height, width, taken = error.shape
    if outputs == 1 and taken % means.size == 0 and taken > 1:  # depthwise: [1, height, width, outputs]
        entering = np.repeat(means, taken // means.size)
        return np.asarray(error.reshape(height * width, taken).sum(axis=0) * entering)
    groups = means.size // taken
    if means.size % taken or outputs % groups:
        return None
    entering = np.repeat(means.reshape(groups, taken), outputs // groups, axis=0)
    return np.asarray((error.sum(axis=(1, 2)) * entering).sum(axis=1))


def _stored(model: Any, index: int) -> NDArray[np.float64] | None:
    """Give the numbers that int8 weights stand for; ``None`` where they are held in another way."""
    tensor = model.subgraphs[0].tensors[index]
    if tflite_model.dtype_of(tensor) != "int8":
        return None
    values = _numbers(model, index, np.int8)
    sides = [1] * values.ndim
    if len(tensor.quantization.scale) > 1:
        sides[int(tensor.quantization.quantizedDimension)] = -1
    scale, zero = (
        np.asarray(given, np.float64).reshape(sides)
        for given in (tensor.quantization.scale, tensor.quantization.zeroPoint)
    )
    return np.asarray((values - zero) * scale)


def _subtract(model: Any, tensor: Any, shift: NDArray[np.float64]) -> None:
    kind = _BIASES.get(tflite_model.dtype_of(tensor))
    if kind is None:
        return
    scale = np.asarray(tensor.quantization.scale, np.float64)
    old = np.frombuffer(bytes(model.buffers[tensor.buffer].data), kind).astype(np.float64)
    limits = np.iinfo(kind)
    made = np.clip(np.rint(old - shift / scale), limits.min, limits.max).astype(kind)
    buffer = type(model.buffers[tensor.buffer])()
    buffer.data = np.frombuffer(made.tobytes(), np.uint8)
    if tflite_model.buffer_users(model)[tensor.buffer] > 1:
        model.buffers.append(buffer)
        tensor.buffer = len(model.buffers) - 1
    else:
        model.buffers[tensor.buffer] = buffer


def _numbers(model: Any, index: int, kind: type[np.generic]) -> NDArray[np.float64]:
    tensor = model.subgraphs[0].tensors[index]
    held: Array = np.frombuffer(bytes(model.buffers[tensor.buffer].data), kind)
    return held.reshape(tflite_model.shape_of(tensor)).astype(np.float64)
