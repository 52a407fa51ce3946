"""OpenVINO: runs IR files. A session serialises its calls with a lock: it holds one infer request."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from threading import Lock
from typing import TYPE_CHECKING, Any, Final, Literal, cast

import numpy as np
import openvino as ov

from edgeml.arrays import Array
from edgeml.cpu import cpu
from edgeml.engine_text import engine_text
from edgeml.errors import InferenceError, ModelFileError, UsageError
from edgeml.formats import check_file
from edgeml.runtime import OperatorTime, RuntimeOptions
from edgeml.tensors import Quantization, TensorSpec
from edgeml_runtimes.binding import (
    BoundSession,
    EngineCall,
    bind,
    bind_checked,
    bind_tapped,
    closed,
    quantization_of,
    quantization_table,
)
from edgeml_runtimes.options import as_options, parse_options

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

_NAME: Final = "openvino"
_REFUSALS: Final = (RuntimeError, ValueError, TypeError, MemoryError)
_QUANTIZATION: Final = ["edgeml", "quantization"]
"""Where in the IR's runtime information scale and zero point of integer inputs and outputs stand."""
_NOTHING: Final[dict[int, Array]] = {}
"""Given to ``infer`` where the inputs stand in the request's own tensors already."""
_NOWHERE: Final[Array] = np.empty(0)
_DTYPES: Final = {"boolean": "bool", "f16": "float16", "f32": "float32", "f64": "float64"} | {
    f"{letter}{bits}": f"{name}{bits}"
    for letter, name in (("i", "int"), ("u", "uint"))
    for bits in (8, 16, 32, 64)
}
"""numpy's name of each of OpenVINO's types that it has; bf16 and those below a byte it has not."""
_NO_KERNEL: Final = "object is not initialized"
"""How oneDNN says that nothing was found for an operator."""
_PRECISIONS: Final = {"f32": ov.Type.f32, "f16": ov.Type.f16, "bf16": ov.Type.bf16}


@dataclass(frozen=True, slots=True)
class OpenVinoOptions(RuntimeOptions):
    """OpenVINO's options."""

    precision: Literal["f32", "f16", "bf16"] = "f32"
    """What float operators compute in. OpenVINO's own default changes with the CPU; this one does not."""
    device: str = "CPU"
    cache_dir: str = ""
    """A folder for compiled models, so that the next load is quicker; empty for none."""


class OpenVino:
    """The driver."""

    name: Final = _NAME

    @property
    def version(self) -> str:
        """The installed ``openvino``."""
        return str(ov.__version__).partition("-")[0]

    def options(self, values: Mapping[str, str]) -> OpenVinoOptions:
        return parse_options(OpenVinoOptions, _NAME, values)

    def load(self, artifact: Path, options: RuntimeOptions | None = None) -> BoundSession:
        chosen = as_options(OpenVinoOptions, _NAME, options)
        core = _core()
        model = _read(core, artifact)
        return _bind(_compile(core, model, chosen, artifact), _specs_of(model, artifact))

    def load_tapped(self, artifact: Path, options: RuntimeOptions | None = None) -> BoundSession:
        chosen = as_options(OpenVinoOptions, _NAME, options)
        core = _core()
        model = _read(core, artifact)
        inputs, outputs = _specs_of(model, artifact)
        try:
            order = _add_taps(model, {spec.name for spec in outputs})
        except _REFUSALS as error:
            raise InferenceError(
                f"{artifact}: OpenVINO cannot show its intermediate tensors: {engine_text(error)}"
            ) from error
        compiled = _compile(core, model, chosen, artifact)
        known = {spec.name: spec for spec in outputs}
        places = {port_name(port): place for place, port in enumerate(model.outputs)}
        tensors = tuple(
            known.get(name) or _spec(model.outputs[places[name]], {}, artifact)
            for name in order
            if name in places
        )
        call, release = _copying(_request(compiled), [places[spec.name] for spec in tensors])
        return bind_tapped(inputs, tensors, call, release)

    def profile(
        self,
        artifact: Path,
        inputs: Mapping[str, Array],
        options: RuntimeOptions | None = None,
        runs: int = 50,
    ) -> tuple[OperatorTime, ...]:
        chosen = as_options(OpenVinoOptions, _NAME, options)
        core = _core()
        model = _read(core, artifact)
        specs = _specs_of(model, artifact)
        request = _request(_compile(core, model, chosen, artifact, PERF_COUNT=True))
        call, release = _copying(request, range(len(specs[1])))
        with BoundSession(*specs, bind_checked(*specs, call), release) as session:
            return _operator_times(request, session, inputs, runs)


@cache
def _core() -> Any:
    """Give the process's one core.

    The CPU plug-in gives the thread that loads it a signal stack and takes it back in the thread that drops
    it: closing the last session in another thread left a freed stack behind, and Ctrl-C crashed the process.
    """
    return ov.Core()


def _operator_times(
    request: Any, session: BoundSession, inputs: Mapping[str, Array], runs: int
) -> tuple[OperatorTime, ...]:
    session.run(inputs)
    totals: dict[str, tuple[str, list[float]]] = {}
    for _ in range(runs):
        session.run(inputs)
        for info in request.get_profiling_info():
            if info.status == info.EXECUTED:
                kind = f"{info.node_type} · {info.exec_type}"
                totals.setdefault(info.node_name, (kind, []))[1].append(info.real_time.total_seconds() * 1e6)
    return tuple(OperatorTime(name, kind, sum(times) / runs) for name, (kind, times) in totals.items())


def _add_taps(model: Any, outputs: set[str]) -> list[str]:
    """Make every float tensor that depends on an input an output; give all names in graph order."""
    order: list[str] = []
    fed: set[str] = set()
    ports = []
    for node in model.get_ordered_ops():
        kind, key = node.get_type_name(), node.get_name()
        sources = [node.input_value(place).get_node() for place in range(node.get_input_size())]
        if kind != "Parameter" and not any(source.get_name() in fed for source in sources):
            continue
        fed.add(key)
        if kind in {"Parameter", "Result"}:
            continue
        for place in range(node.get_output_size()):
            port = node.output(place)
            name = port_name(port)
            if name in order:
                continue
            if name in outputs:
                order.append(name)
            elif port.element_type.is_real():
                if not port.get_names():  # else the output is named by a running number
                    port.get_tensor().set_names({name})
                order.append(name)
                ports.append(port)
    model.add_outputs(ports)
    return order


def _read(core: Any, artifact: Path) -> Any:
    check_file(artifact, "openvino")
    weights = artifact.with_suffix(".bin")
    try:
        return core.read_model(str(artifact), str(weights) if weights.exists() else "")
    except _REFUSALS as error:
        raise ModelFileError(f"{artifact}: OpenVINO cannot read it: {engine_text(error)}") from error


def _compile(core: Any, model: Any, options: OpenVinoOptions, artifact: Path, **more: Any) -> Any:
    device = options.device
    if device.partition(".")[0] not in {name.partition(".")[0] for name in core.available_devices}:
        raise UsageError(
            f"openvino finds no device {device!r}; it finds: {', '.join(core.available_devices)}"
        )
    settings: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": _PRECISIONS[options.precision],
        **more,
    }
    if device == "CPU":
        settings["INFERENCE_NUM_THREADS"] = options.threads
        # Its default quantizes the activations of models with compressed weights unasked.
        settings["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = 0
    if options.cache_dir:
        settings["CACHE_DIR"] = options.cache_dir
    try:
        compiled = _compiled(core, model, device, settings)
        effective = compiled.get_property("INFERENCE_PRECISION_HINT")
    except _REFUSALS as error:
        raise InferenceError(f"{artifact}: OpenVINO refuses the model: {engine_text(error)}") from error
    if effective != _PRECISIONS[options.precision]:
        raise InferenceError(
            f"{artifact}: OpenVINO computes in {effective.get_type_name()} on this {device}, and "
            f"{options.precision} was asked for; load it with precision={effective.get_type_name()}"
        )
    return compiled


def _compiled(core: Any, model: Any, device: str, settings: Mapping[str, Any]) -> Any:
    """Compile a model so that, on Arm, none of its convolutions is left to OpenVINO's reference code.

    OpenVINO 2026.4 has no int8 kernel there for a convolution whose input has a zero point, 3×3 of stride 1
    aside. It takes reference code in f16, whatever precision was asked for, and where the CPU has no f16
    nothing: the model is refused. Such a model is computed in float, rounded where it says so.
    """
    if device != "CPU" or cpu().architecture != "aarch64":
        return core.compile_model(model, device, settings)
    in_float = {**settings, "LP_TRANSFORMS_MODE": "NO"}
    try:
        compiled = core.compile_model(model, device, settings)
    except RuntimeError as error:
        if _NO_KERNEL not in str(error):
            raise
        return core.compile_model(model, device, in_float)
    lacks = any(kernel in {"", "ref"} for kernel in _convolution_kernels(compiled))
    return core.compile_model(model, device, in_float) if lacks else compiled


def _convolution_kernels(compiled: Any) -> list[str]:
    """Give the kind of each convolution's kernel: ``acl``, ``gemm``, ``ref``, empty where there is none."""
    found = [node.get_rt_info() for node in compiled.get_runtime_model().get_ordered_ops()]
    return [
        info["primitiveType"].astype(str).partition("_")[0]
        for info in found
        if "layerType" in info and info["layerType"].astype(str) == "Convolution"
    ]


def _specs_of(model: Any, artifact: Path) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    text = str(model.get_rt_info(_QUANTIZATION).astype(str)) if model.has_rt_info(_QUANTIZATION) else None
    table = quantization_table(text, artifact)
    inputs, outputs = (
        tuple(_spec(port, table, artifact) for port in ports) for ports in (model.inputs, model.outputs)
    )
    return inputs, outputs


def _spec(port: Any, table: Mapping[str, Quantization], artifact: Path) -> TensorSpec:
    name = port_name(port)
    shape = tuple(side.get_length() if side.is_static else None for side in port.partial_shape)
    kind = port.element_type.get_type_name()
    dtype = _DTYPES.get(kind)
    if dtype is None:
        raise InferenceError(f"{artifact}: {name!r} is {kind}, which numpy cannot hold")
    return TensorSpec(name, shape, dtype, quantization_of(table, name, dtype))


def port_name(port: Any) -> str:
    """Give a port's tensor name, or that of its operator where it has none."""
    names = sorted(port.get_names())
    if names:
        return str(port.get_any_name())
    node = port.get_node()
    if node.get_type_name() == "Result":
        node = node.input_value(0).get_node()
    return str(node.get_friendly_name())


def _bind(compiled: Any, specs: tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]) -> BoundSession:
    inputs, outputs = specs
    request = _request(compiled)
    if all(None not in spec.shape for spec in (*inputs, *outputs)):
        return _bind_static(request, inputs, outputs)
    call, release = _copying(request, range(len(outputs)))
    return BoundSession(inputs, outputs, bind_checked(inputs, outputs, call), release)


def _request(compiled: Any) -> Any:
    try:
        return compiled.create_infer_request()
    except _REFUSALS as error:
        raise InferenceError(f"OpenVINO cannot prepare the model: {engine_text(error)}") from error


def _bind_static(
    request: Any, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]
) -> BoundSession:
    """Bind a model of fixed shapes: the request's own tensors are filled and copied."""
    sources = [request.get_input_tensor(place).data for place in range(len(inputs))]
    results = [request.get_output_tensor(place).data for place in range(len(outputs))]
    source, result = [*sources, _NOWHERE][0], [*results, _NOWHERE][0]
    # The binding beneath InferRequest.infer, which would copy all results into a dictionary of its own.
    infer = super(type(request), request).infer
    lock, share, keep = Lock(), True, False
    del request

    def call(arrays: list[Array]) -> list[Array]:
        with lock:
            if infer is closed:
                closed()
            for view, array in zip(sources, arrays, strict=True):
                view[...] = array
            try:
                infer(_NOTHING, share, keep)
            except _REFUSALS as error:
                raise _failure(error) from error
            return [view.copy() for view in results]

    def call_one(array: Array) -> Array:
        with lock:
            if infer is closed:
                closed()
            source[...] = array
            try:
                infer(_NOTHING, share, keep)
            except _REFUSALS as error:
                raise _failure(error) from error
            return cast("Array", result.copy())

    def release() -> None:
        nonlocal infer, sources, results, source, result
        with lock:
            infer, sources, results, source, result = closed, [], [], _NOWHERE, _NOWHERE

    return BoundSession(inputs, outputs, bind(inputs, outputs, call, call_one), release)


def _copying(request: Any, places: Sequence[int]) -> tuple[EngineCall, Callable[[], None]]:
    """Give the call of a request whose tensors move with their shapes, and its release: the engine copies."""
    lock = Lock()

    def call(arrays: list[Array]) -> list[Array]:
        with lock:
            if request is None:
                closed()
            try:
                found = request.infer(dict(enumerate(arrays)))
                return [found[place] for place in places]
            except _REFUSALS as error:
                raise _failure(error) from error

    def release() -> None:
        nonlocal request
        with lock:
            request = None

    return call, release


def _failure(error: BaseException) -> InferenceError:
    return InferenceError(f"OpenVINO failed while it ran the model: {engine_text(error)}")
