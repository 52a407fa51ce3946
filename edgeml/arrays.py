"""The values of tensors: arrays quantized and dequantized, and the errors for those that do not fit.

What needs numpy of tensors is here; :mod:`edgeml.tensors` is the declaration only and imports nothing heavy.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NoReturn

import numpy as np
from numpy.typing import NDArray

from edgeml.errors import InputDtypeError, InputShapeError
from edgeml.tensors import Quantization, TensorSpec, reject_names, shape_fits

Array = NDArray[Any]
IMAGE_BATCH_RANK: Final = 4


def quantize(values: Array, quantization: Quantization, dtype: str) -> Array:
    """Store float ``values`` (any shape) as integers of ``dtype``, rounded to even and clipped."""
    info = np.iinfo(dtype)
    scale, zero_point = _broadcast(quantization, values.ndim)
    stored = np.rint(np.asarray(values, np.float32) / scale) + zero_point
    # float32 has no 2**31 - 1: what is clipped to it has to be wider
    clipped: Array = np.clip(stored.astype(np.float64), info.min, info.max)
    return clipped.astype(dtype)


def dequantize(stored: Array, quantization: Quantization) -> NDArray[np.float32]:
    """Give the float32 values that integers of any shape stand for."""
    scale, zero_point = _broadcast(quantization, stored.ndim)
    return np.asarray((stored.astype(np.float32) - zero_point) * scale, np.float32)


def _broadcast(quantization: Quantization, rank: int) -> tuple[Array, Array]:
    scale = np.asarray(quantization.scale, np.float32)
    zero_point = np.asarray(quantization.zero_point, np.float32)
    if quantization.axis is not None and scale.size > 1:
        shape = [1] * rank
        shape[quantization.axis] = -1
        scale = scale.reshape(shape)
        zero_point = zero_point.reshape(shape) if zero_point.size > 1 else zero_point
    return scale, zero_point


def require_inputs(specs: tuple[TensorSpec, ...], sample: Mapping[str, Array]) -> None:
    """Raise the error for a sample that is not just the model's inputs, each of its dtype and shape.

    Raises:
        InputNameError: an input is missing, or one is unknown.
        InputDtypeError, InputShapeError: as ``reject_array``.
    """
    if sample.keys() != {spec.name for spec in specs}:
        reject_names(specs, dict(sample))
    for spec in specs:
        array = sample[spec.name]
        is_array = isinstance(array, np.ndarray)
        if not is_array or array.dtype != np.dtype(spec.dtype) or not shape_fits(spec, array.shape):
            reject_array(spec, array)


def reject_array(spec: TensorSpec, given: object) -> NoReturn:
    """Raise the error that says why ``given`` cannot be the value of input ``spec``.

    Raises:
        InputDtypeError: not an array, or an array of another dtype.
        InputShapeError: an array of another shape; says so when the batch dimension is missing
            or when the layout looks transposed.
    """
    if not isinstance(given, np.ndarray):
        raise InputDtypeError(
            f"input {spec.name!r}: got {type(given).__name__}, needs a numpy array of {spec.dtype}; "
            f"use numpy.asarray(x, {spec.dtype!r})"
        )
    if given.dtype != np.dtype(spec.dtype) and not shape_only_mismatch(spec, given):
        raise InputDtypeError(_dtype_message(spec, given.dtype.name))
    raise InputShapeError(_shape_message(spec, given.shape))


def shape_only_mismatch(spec: TensorSpec, given: Array) -> bool:
    """Say whether only the shape is wrong; a float caller of a quantized input has a right dtype."""
    if given.dtype == np.dtype(spec.dtype):
        return True
    return spec.quantization is not None and given.dtype == np.float32


def _dtype_message(spec: TensorSpec, got: str) -> str:
    if spec.quantization is not None:
        scale, zero_point = spec.quantization.scale[0], spec.quantization.zero_point[0]
        return (
            f"input {spec.name!r} is {spec.dtype} (scale {scale:.6g}, zero point {zero_point}), "
            f"got {got}; pass {spec.dtype} as stored, or float32 to have it quantized"
        )
    return f"input {spec.name!r}: got {got}, needs {spec.dtype}; use x.astype({spec.dtype!r})"


def _shape_message(spec: TensorSpec, got: tuple[int, ...]) -> str:
    needs = "(" + ", ".join("any" if side is None else str(side) for side in spec.shape) + ")"
    text = f"input {spec.name!r}: got {got}, needs {needs}"
    if len(got) == len(spec.shape) - 1 and shape_fits(spec, (1, *got)):
        return f"{text}: add the batch dimension, x[None]"
    if len(got) == len(spec.shape) == IMAGE_BATCH_RANK:
        if shape_fits(spec, (got[0], got[2], got[3], got[1])):
            return f"{text}: looks like NCHW, this model takes NHWC: x.transpose(0, 2, 3, 1)"
        if shape_fits(spec, (got[0], got[3], got[1], got[2])):
            return f"{text}: looks like NHWC, this model takes NCHW: x.transpose(0, 3, 1, 2)"
    if len(got) == len(spec.shape) and spec.shape[:1] == (1,) and shape_fits(spec, (1, *got[1:])):
        return f"{text}: this variant has batch 1; pass one sample at a time"
    return text
