"""LiteRT: runs TensorFlow Lite files on the CPU, and those compiled for the Edge TPU on it.

A session serialises its calls with a lock: an interpreter has one set of buffers.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from importlib.metadata import version
from threading import Lock
from typing import TYPE_CHECKING, Any, Final, Literal, cast

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from edgeml.arrays import Array
from edgeml.edgetpu import KERNEL, OPERATOR
from edgeml.engine_text import engine_text
from edgeml.errors import AcceleratorError, InferenceError, ModelFileError
from edgeml.formats import check_file
from edgeml.runtime import OperatorTime, RuntimeOptions
from edgeml.tensors import Quantization, TensorSpec
from edgeml_runtimes.binding import (
    BoundSession,
    bind,
    bind_checked,
    bind_tapped,
    closed,
)
from edgeml_runtimes.chatter import without_chatter
from edgeml_runtimes.litert_delegate import open_delegate
from edgeml_runtimes.litert_profile import operator_times
from edgeml_runtimes.options import as_options, parse_options

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_NAME: Final = "litert"
_CHATTER: Final = b"INFO: Created TensorFlow Lite XNNPACK delegate"
_REFUSALS: Final = (RuntimeError, ValueError, TypeError, SystemError, MemoryError)
"""What the interpreter raises; SystemError stands for a null pointer inside it."""


@dataclass(frozen=True, slots=True)
class LiteRTOptions(RuntimeOptions):
    """LiteRT's options."""

    xnnpack: bool = True
    """Whether float and int8 operators go to the XNNPACK kernels; off gives the built-in ones."""
    delegate: str = ""
    """Library of a delegate; by default the Edge TPU's, for files that were compiled for it."""
    device: str = ""
    """Which Edge TPU: ``usb`` or ``pci``, with ``:N`` behind it for one of several; by default any."""
    performance: Literal["default", "low", "medium", "high", "max"] = "default"
    """Clock of the Edge TPU; a higher one makes it hotter."""


class LiteRT:
    """The driver."""

    name: Final = _NAME

    @property
    def version(self) -> str:
        """The installed ``ai-edge-litert``."""
        return version("ai-edge-litert")

    def options(self, values: Mapping[str, str]) -> LiteRTOptions:
        return parse_options(LiteRTOptions, _NAME, values)

    def load(self, artifact: Path, options: RuntimeOptions | None = None) -> BoundSession:
        interpreter = _open(artifact, as_options(LiteRTOptions, _NAME, options))
        try:
            return _bind(_Engine(interpreter, *_signature(interpreter)))
        except UnicodeDecodeError as error:
            raise ModelFileError(f"{artifact} is damaged: a tensor's name is no text: {error}") from error

    def load_tapped(self, artifact: Path, options: RuntimeOptions | None = None) -> BoundSession:
        interpreter = _open(artifact, as_options(LiteRTOptions, _NAME, options), preserve=True)
        inputs, outputs = _signature(interpreter)
        engine = _Engine(interpreter, inputs, _readable(interpreter, inputs, outputs))
        return bind_tapped(
            tuple(tensor.spec for tensor in inputs),
            tuple(tensor.spec for tensor in engine.outputs),
            engine.call,
            engine.release,
        )

    def profile(
        self,
        artifact: Path,
        inputs: Mapping[str, Array],
        options: RuntimeOptions | None = None,
        runs: int = 50,
    ) -> tuple[OperatorTime, ...]:
        chosen = as_options(LiteRTOptions, _NAME, options)
        interpreter = _open(artifact, chosen)
        if _delegates(interpreter):
            raise InferenceError(f"{artifact}: operators that a delegate runs cannot be timed one by one")
        tensors, _ = _signature(interpreter)
        checked: dict[int, Array] = {}

        def keep(arrays: list[Array]) -> list[Array]:
            checked.update(zip((tensor.index for tensor in tensors), arrays, strict=True))
            return []

        bind_checked(tuple(tensor.spec for tensor in tensors), (), keep)(inputs)
        return operator_times(
            artifact,
            checked,
            _node_names(interpreter),
            threads=chosen.threads,
            xnnpack=chosen.xnnpack,
            runs=runs,
        )


@dataclass(frozen=True, slots=True)
class _Tensor:
    """A tensor of the interpreter, and what it is called outside."""

    index: int
    spec: TensorSpec


def _open(artifact: Path, options: LiteRTOptions, *, preserve: bool = False) -> Any:
    """Give an interpreter that is ready to run."""
    check_file(artifact, "tflite")
    if options.delegate:
        return _open_delegated(artifact, options, preserve=preserve)
    try:
        interpreter = _interpreter(artifact, options, preserve=preserve)
    except _REFUSALS as error:
        raise ModelFileError(f"{artifact}: LiteRT cannot read it: {engine_text(error)}") from error
    try:
        with without_chatter(_CHATTER):
            interpreter.allocate_tensors()
    except _REFUSALS as error:
        if OPERATOR not in str(error):
            raise InferenceError(_refusal(artifact, engine_text(error))) from error
    else:
        return interpreter
    return _open_delegated(artifact, options, preserve=preserve)


def _open_delegated(artifact: Path, options: LiteRTOptions, *, preserve: bool) -> Any:
    delegate = open_delegate(artifact, options.delegate, options.device, options.performance)
    try:
        interpreter = _interpreter(artifact, options, [delegate], preserve=preserve)
        with without_chatter(_CHATTER):
            interpreter.allocate_tensors()
    except _REFUSALS as error:
        text = engine_text(error)
        if KERNEL not in str(error):
            raise InferenceError(_refusal(artifact, text)) from error
        raise AcceleratorError(
            f"{artifact}: the Edge TPU refuses it: {text}; it may want a newer library"
        ) from error
    return interpreter


def _interpreter(
    artifact: Path, options: LiteRTOptions, delegates: list[Any] | None = None, *, preserve: bool
) -> Any:
    resolver = OpResolverType.AUTO if options.xnnpack else OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    # The warning is about the memory of preserved tensors.
    with warnings.catch_warnings(action="ignore"), without_chatter(_CHATTER):
        return Interpreter(
            model_path=str(artifact),
            num_threads=options.threads,
            experimental_op_resolver_type=resolver,
            experimental_preserve_all_tensors=preserve,
            experimental_delegates=delegates,
        )


def _delegates(interpreter: Any) -> list[Any]:
    return list(interpreter._delegates)  # noqa: SLF001 - an engine that outlives the interpreter holds them


def _refusal(artifact: Path, text: str) -> str:
    if OPERATOR in text:
        return f"{artifact}: compiled for the Edge TPU, which this delegate is not; run the source .tflite"
    if "unresolved custom op" in text:
        custom = text.partition("unresolved custom op:")[2].strip().partition(". ")[0]
        return (
            f"{artifact}: needs the custom operator {custom}, which LiteRT does not have; convert without it"
        )
    return f"{artifact}: LiteRT refuses the model: {text}"


def _signature(interpreter: Any) -> tuple[tuple[_Tensor, ...], tuple[_Tensor, ...]]:
    """Give inputs and outputs; named by the model's only signature if it covers them, else by tensor."""
    details = (interpreter.get_input_details(), interpreter.get_output_details())
    signatures = list(interpreter._get_full_signature_list().values())  # noqa: SLF001 - the public one hides indices
    named: tuple[dict[int, str], dict[int, str]] = ({}, {})
    if len(signatures) == 1:
        named = (
            {index: name for name, index in signatures[0]["inputs"].items()},
            {index: name for name, index in signatures[0]["outputs"].items()},
        )
    inputs, outputs = (
        tuple(
            _tensor(detail, names[detail["index"]] if _covers(names, side) else detail["name"])
            for detail in side
        )
        for names, side in zip(named, details, strict=True)
    )
    return inputs, outputs


def _covers(names: Mapping[int, str], side: list[dict[str, Any]]) -> bool:
    return {detail["index"] for detail in side} == set(names)


def _tensor(detail: dict[str, Any], name: str) -> _Tensor:
    dtype = np.dtype(detail["dtype"])
    quantization = _quantization(detail["quantization_parameters"]) if dtype.kind in "iu" else None
    shape = tuple(None if side < 0 else int(side) for side in detail["shape_signature"])
    if not shape:
        shape = tuple(int(side) for side in detail["shape"])
    return _Tensor(int(detail["index"]), TensorSpec(name, shape, dtype.name, quantization))


def _quantization(parameters: dict[str, Any]) -> Quantization | None:
    if not len(parameters["scales"]):
        return None
    return Quantization(
        tuple(float(scale) for scale in parameters["scales"]),
        tuple(int(point) for point in parameters["zero_points"]),
        int(parameters["quantized_dimension"]) if len(parameters["scales"]) > 1 else None,
    )


def _readable(
    interpreter: Any, inputs: tuple[_Tensor, ...], outputs: tuple[_Tensor, ...]
) -> tuple[_Tensor, ...]:
    """Give what the operators write and can be read afterwards, in the order of the graph."""
    interpreter.invoke()
    by_index = {tensor.index: tensor for tensor in (*inputs, *outputs)}
    found: dict[int, _Tensor] = {}
    for operator in interpreter._get_ops_details():  # noqa: SLF001 - the only way to tell results from weights
        for index in operator["outputs"]:
            if index in found:
                continue
            try:
                interpreter.get_tensor(index)
                detail = interpreter._get_tensor_details(index, 0)  # noqa: SLF001 - as above
            except _REFUSALS:
                continue
            found[index] = by_index.get(index) or _tensor(detail, detail["name"])
    return tuple(found.values())


def _node_names(interpreter: Any) -> dict[int, str]:
    """Call each node by the tensor that it writes first."""
    return {
        node["index"]: interpreter._get_tensor_details(node["outputs"][0], 0)["name"]  # noqa: SLF001 - as below
        for node in interpreter._get_ops_details()  # noqa: SLF001 - the only way to a node's results
        if len(node["outputs"])
    }


class _Engine:
    """An allocated interpreter, the lock around it, and the input shapes it is allocated for.

    It calls the interpreter's binding itself: ``Interpreter`` counts the references to the binding before
    each call, to find numpy views of its memory. None is ever handed out here.
    """

    __slots__ = ("delegates", "held", "inputs", "lock", "outputs", "raw")

    def __init__(self, interpreter: Any, inputs: tuple[_Tensor, ...], outputs: tuple[_Tensor, ...]) -> None:
        self.inputs = inputs
        self.outputs = outputs
        self.lock = Lock()
        self.delegates = _delegates(interpreter)
        self.raw = interpreter._interpreter  # noqa: SLF001 - see above
        self.held: list[tuple[int, ...]] = [
            tuple(int(side) for side in part["shape"]) for part in interpreter.get_input_details()
        ]

    def call(self, arrays: list[Array]) -> list[Array]:
        with self.lock:
            if self.raw is None:
                closed()
            try:
                self._allocate_for(arrays)
                for tensor, array in zip(self.inputs, arrays, strict=True):
                    self.raw.SetTensor(tensor.index, array)
                self.raw.Invoke()
                return [self.raw.GetTensor(tensor.index, 0) for tensor in self.outputs]
            except _REFUSALS as error:
                raise _failure(error) from error

    def _allocate_for(self, arrays: list[Array]) -> None:
        shapes = [array.shape for array in arrays]
        if shapes == self.held:
            return
        self.held[:] = [()]
        for tensor, array in zip(self.inputs, arrays, strict=True):
            self.raw.ResizeInputTensor(tensor.index, np.array(array.shape, np.int32), True)  # noqa: FBT003 - strict
        self.raw.AllocateTensors()
        self.held[:] = shapes

    def release(self) -> None:
        with self.lock:
            self.raw = None
            self.delegates = []

    def __del__(self) -> None:
        self.raw = None  # before the delegates, which it uses to its end


def _failure(error: BaseException) -> InferenceError:
    if KERNEL in str(error):
        return AcceleratorError(
            f"the Edge TPU failed while it ran the model: {engine_text(error)}; look at its cable, power and "
            "temperature, plug it in again and load the model again"
        )
    return InferenceError(f"LiteRT failed while it ran the model: {engine_text(error)}")


def _bind(engine: _Engine) -> BoundSession:
    inputs = tuple(tensor.spec for tensor in engine.inputs)
    outputs = tuple(tensor.spec for tensor in engine.outputs)
    if engine.delegates:  # nothing but the engine may hold the interpreter: it must go before them
        return BoundSession(inputs, outputs, bind_checked(inputs, outputs, engine.call), engine.release)
    raw, lock, held = engine.raw, engine.lock, engine.held
    write, invoke, read = raw.SetTensor, raw.Invoke, raw.GetTensor
    source, result = (engine.inputs[0].index, engine.outputs[0].index) if inputs and outputs else (0, 0)
    del raw

    def call_one(array: Array) -> Array:
        with lock:
            if array.shape == held[0]:
                try:
                    write(source, array)
                    invoke()
                    return cast("Array", read(result, 0))
                except _REFUSALS as error:
                    raise _failure(error) from error
        return engine.call([array])[0]

    def release() -> None:
        nonlocal write, invoke, read
        engine.release()
        with lock:
            write = invoke = read = closed

    return BoundSession(inputs, outputs, bind(inputs, outputs, engine.call, call_one), release)
