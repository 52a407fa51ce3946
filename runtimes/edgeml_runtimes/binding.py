"""What every driver does around its engine: check and convert inputs, convert outputs, refuse after close.

The usual call, one input of the model's own dtype and one output, takes a closure that compares name,
dtype and shape and nothing else; wrong input, float callers of quantized models and several inputs take
a slower one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NoReturn, Self

import numpy as np

from edgeml.errors import InferenceError, ModelFileError
from edgeml.tensors import (
    Array,
    Quantization,
    TensorSpec,
    dequantize,
    quantize,
    reject_array,
    reject_names,
    shape_fits,
)

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
    if outputs[0].quantization is not None and inputs[0].quantization is None:
        return run_any
    name, dtype, result_name = inputs[0].name, np.dtype(inputs[0].dtype), outputs[0].name
    shape: tuple[int | None, ...] = inputs[0].shape

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


def bind_checked(
    inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...], call: EngineCall
) -> RunCall:
    """Give the ``run`` that serves every caller: any input dtype that is allowed, any number of tensors."""
    dtypes = tuple(np.dtype(spec.dtype) for spec in inputs)
    plain = all(spec.quantization is None for spec in inputs)
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
            elif spec.quantization is not None and array.dtype == np.float32:
                arrays[place] = quantize(array, spec.quantization, spec.dtype)
            else:
                reject_array(spec, array)
        results = call(arrays)
        if stored and not plain:
            return {spec.name: result for spec, result in zip(outputs, results, strict=True)}
        return {
            spec.name: result if spec.quantization is None else dequantize(result, spec.quantization)
            for spec, result in zip(outputs, results, strict=True)
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

    def call_dequantized(arrays: list[Array]) -> list[Array]:
        return [
            result if spec.quantization is None else dequantize(result, spec.quantization)
            for spec, result in zip(tensors, call(arrays), strict=True)
        ]

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


def quantization_text(table: Mapping[str, Quantization]) -> str:
    """Write the JSON that :func:`quantization_table` reads."""
    return json.dumps(
        {
            name: {"scale": list(entry.scale), "zero_point": list(entry.zero_point)}
            | ({} if entry.axis is None else {"axis": entry.axis})
            for name, entry in table.items()
        },
        sort_keys=True,
    )


def engine_text(error: BaseException, limit: int = 300) -> str:
    """Give the first telling line of an engine's message, without the place in its source."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if not line.startswith(("Exception from ", "Check '"))]
    text = " ".join(telling or lines) or type(error).__name__
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _floats(value: Any) -> tuple[float, ...]:
    return tuple(float(part) for part in (value if isinstance(value, list) else [value]))


def _ints(value: Any) -> tuple[int, ...]:
    return tuple(int(part) for part in (value if isinstance(value, list) else [value]))
