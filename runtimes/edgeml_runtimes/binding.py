"""What every driver does around its engine: check and convert inputs, convert outputs, refuse after close.

The usual call, one input of the model's own dtype and one output, takes a closure that compares name,
dtype and shape and nothing else; wrong input, float callers of quantized models and several inputs take
a slower one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, NoReturn, Self

import numpy as np

from edgeml.arrays import Array, dequantize, quantize, reject_array
from edgeml.errors import InferenceError, InputError, ModelFileError
from edgeml.tensors import Quantization, TensorSpec, reject_names, shape_fits

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

RunCall = Callable[[Mapping[str, Array]], dict[str, Array]]
EngineCall = Callable[[list[Array]], list[Array]]
"""Takes checked arrays in the order of the inputs, gives new arrays in the order of the outputs."""
SingleCall = Callable[[Array], Array]
"""The same for a model of one input and one output."""


class BoundSession:
    """A session whose ``run`` a driver has bound; ``release`` frees the engine and is called once or more."""

    __slots__ = ("_release", "inputs", "outputs", "run")

    def __init__(
        self,
        inputs: tuple[TensorSpec, ...],
        outputs: tuple[TensorSpec, ...],
        run: RunCall,
        release: Callable[[], None],
    ) -> None:
        self.inputs = inputs
        self.outputs = outputs
        self.run = run
        self._release = release

    def close(self) -> None:
        self._release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._release()


_FLOAT: Final = np.dtype(np.float32)
_EXACT_BYTES: Final = 2
"""Integers of this size and below are all exact in float32."""


def closed(*_: object) -> NoReturn:
    """Stand in for the engine's calls once a session is closed."""
    raise InferenceError("this session is closed; load the model again")


def bind(
    inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...], call: EngineCall, call_one: SingleCall
) -> RunCall:
    """Give the ``run`` of a session; ``call_one`` serves models of one input and one output."""
    run_any = bind_checked(inputs, outputs, call)
    if len(inputs) != 1 or len(outputs) != 1:
        return run_any
    source, result = inputs[0], outputs[0]
    if source.quantization is not None:
        return _bind_quantized(source, result, call_one, run_any)
    if result.quantization is not None:
        return run_any
    name, dtype, result_name = source.name, np.dtype(source.dtype), result.name
    shape: tuple[int | None, ...] = source.shape

    def run(given: Mapping[str, Array]) -> dict[str, Array]:
        nonlocal shape
        try:
            array = given[name]
            if array.dtype is dtype and array.shape == shape and len(given) == 1:
                return {result_name: call_one(array)}
        except (KeyError, AttributeError, TypeError, IndexError):
            return run_any(given)
        results = run_any(given)
        # An accepted shape of a model with free dimensions is quick from now on.
        shape = array.shape
        return results

    return run


def _bind_quantized(
    source: TensorSpec, result: TensorSpec, call_one: SingleCall, run_any: RunCall
) -> RunCall:
    """Bind a model of one quantized input and one output: stored integers go through, floats both ways."""
    name, dtype, result_name = source.name, np.dtype(source.dtype), result.name
    store, restore = storing(source), restoring(result)
    shape: tuple[int | None, ...] = source.shape

    def run(given: Mapping[str, Array]) -> dict[str, Array]:
        nonlocal shape
        try:
            array = given[name]
            if array.shape == shape and len(given) == 1:
                if array.dtype is dtype:
                    return {result_name: call_one(array)}
                if array.dtype is _FLOAT:
                    return {result_name: restore(call_one(store(array)))}
        except (KeyError, AttributeError, TypeError, IndexError):
            return run_any(given)
        results = run_any(given)
        shape = array.shape
        return results

    return run


def storing(spec: TensorSpec) -> SingleCall:
    """Give ``edgeml.arrays.quantize`` for one tensor, its constants worked out beforehand.

    What is given raises InputError for NaN.
    """
    quantization = spec.quantization
    if quantization is None:
        return _unchanged

    def store_any(values: Array) -> Array:
        if np.isnan(values).any():
            _reject_nan(spec)
        return quantize(values, quantization, spec.dtype)

    if len(quantization.scale) != 1:
        return store_any
    dtype, info = np.dtype(spec.dtype), np.iinfo(spec.dtype)
    scale, zero_point = np.float32(quantization.scale[0]), np.float32(quantization.zero_point[0])
    low, high = np.float32(info.min), np.float32(info.max)

    def store(values: Array) -> Array:
        stored = np.asarray(values / scale)
        np.rint(stored, out=stored)
        np.add(stored, zero_point, out=stored)
        np.maximum(stored, low, out=stored)
        np.minimum(stored, high, out=stored)
        # clipped numbers have a finite sum, and NaN stays NaN: quicker than to look at each
        if math.isnan(np.add.reduce(stored, axis=None)):
            _reject_nan(spec)
        return stored.astype(dtype)

    return store if dtype.itemsize <= _EXACT_BYTES else store_any


def _reject_nan(spec: TensorSpec) -> NoReturn:
    raise InputError(f"input {spec.name!r} holds NaN, which {spec.dtype} cannot store; pass numbers only")


def restoring(spec: TensorSpec) -> SingleCall:
    """Give ``edgeml.arrays.dequantize`` for one tensor, its constants worked out beforehand."""
    quantization = spec.quantization
    if quantization is None:
        return _unchanged
    if len(quantization.scale) != 1:
        return lambda stored: dequantize(stored, quantization)
    scale, zero_point = np.float32(quantization.scale[0]), np.float32(quantization.zero_point[0])

    def restore(stored: Array) -> Array:
        values = stored.astype(_FLOAT)
        np.subtract(values, zero_point, out=values)
        np.multiply(values, scale, out=values)
        return values

    return restore


def _unchanged(array: Array) -> Array:
    return array


def bind_checked(
    inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...], call: EngineCall
) -> RunCall:
    """Give the ``run`` that serves every caller: any input dtype that is allowed, any number of tensors."""
    dtypes = tuple(np.dtype(spec.dtype) for spec in inputs)
    store = [storing(spec) for spec in inputs]
    restore = [restoring(spec) for spec in outputs]
    count = len(inputs)

    def run(given: Mapping[str, Array]) -> dict[str, Array]:
        try:
            arrays = [given[spec.name] for spec in inputs]
            matches = len(given) == count
        except (KeyError, TypeError, IndexError):
            matches = False
        if not matches:
            reject_names(inputs, given)
        stored = False
        for place, (spec, dtype, array) in enumerate(zip(inputs, dtypes, arrays, strict=True)):
            if not isinstance(array, np.ndarray) or not shape_fits(spec, array.shape):
                reject_array(spec, array)
            if array.dtype.newbyteorder("=") == dtype:
                stored = stored or spec.quantization is not None
                arrays[place] = array.astype(dtype, copy=False)  # native byte order
            elif spec.quantization is not None and array.dtype.newbyteorder("=") == _FLOAT:
                arrays[place] = store[place](array.astype(_FLOAT, copy=False))  # native byte order
            else:
                reject_array(spec, array)
        results = call(arrays)
        if stored:
            return {spec.name: result for spec, result in zip(outputs, results, strict=True)}
        return {
            spec.name: convert(result)
            for spec, convert, result in zip(outputs, restore, results, strict=True)
        }

    return run


def bind_tapped(
    inputs: tuple[TensorSpec, ...],
    tensors: tuple[TensorSpec, ...],
    call: EngineCall,
    release: Callable[[], None],
) -> BoundSession:
    """Give a session whose outputs are ``tensors``, those that are quantized always as float32."""
    outputs = tuple(
        spec if spec.quantization is None else TensorSpec(spec.name, spec.shape, "float32")
        for spec in tensors
    )

    restore = [restoring(spec) for spec in tensors]

    def call_dequantized(arrays: list[Array]) -> list[Array]:
        return [convert(result) for convert, result in zip(restore, call(arrays), strict=True)]

    return BoundSession(inputs, outputs, bind_checked(inputs, outputs, call_dequantized), release)


def quantization_table(text: str | None, artifact: Path) -> dict[str, Quantization]:
    """Read scale and zero point by tensor name from an artifact's ``edgeml.quantization`` entry.

    The entry is JSON, ``{"tensor": {"scale": 0.5, "zero_point": 83}}``; lists with an ``axis`` are
    allowed for values per slice.

    Raises:
        ModelFileError: it is not of that form.
    """
    if not text:
        return {}
    try:
        return {
            str(name): Quantization(_floats(entry["scale"]), _ints(entry["zero_point"]), entry.get("axis"))
            for name, entry in json.loads(text).items()
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelFileError(
            f"{artifact}: its edgeml.quantization entry cannot be read ({error}); convert the model again"
        ) from error


def quantization_of(table: Mapping[str, Quantization], name: str, dtype: str) -> Quantization | None:
    """Give a tensor's entry, if the tensor holds integers."""
    return table.get(name) if np.dtype(dtype).kind in "iu" else None


def _floats(value: Any) -> tuple[float, ...]:
    return tuple(float(part) for part in (value if isinstance(value, list) else [value]))


def _ints(value: Any) -> tuple[int, ...]:
    return tuple(int(part) for part in (value if isinstance(value, list) else [value]))
