"""ONNX Runtime: runs ONNX files. A session may be called from several threads at once."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, cast

import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as binding

from edgeml.arrays import Array
from edgeml.engine_text import engine_text
from edgeml.errors import InferenceError, ModelFileError, UsageError
from edgeml.formats import check_file
from edgeml.runtime import OperatorTime, RuntimeOptions
from edgeml.tensors import Quantization, TensorSpec
from edgeml_runtimes.binding import (
    BoundSession,
    bind,
    bind_tapped,
    closed,
    quantization_of,
    quantization_table,
)
from edgeml_runtimes.onnxruntime_tap import Tap, tapped_model
from edgeml_runtimes.options import as_options, parse_options

if TYPE_CHECKING:
    from collections.abc import Mapping

_NAME: Final = "onnxruntime"
_ENGINE_ERRORS: Final[tuple[type[Exception], ...]] = tuple(
    kind
    for kind in vars(binding).values()
    if isinstance(kind, type) and issubclass(kind, Exception) and kind is not Exception
)
_REFUSALS: Final[tuple[type[Exception], ...]] = (
    *_ENGINE_ERRORS,
    RuntimeError,
    ValueError,
    TypeError,
    MemoryError,
)
_UNREADABLE: Final = (binding.InvalidProtobuf, binding.NoSuchFile, binding.NoModel)
_LOG_FATAL: Final = 4
"""Failures arrive as exceptions; the engine would print them as well."""
_DTYPES: Final = {
    "float": "float32", "double": "float64", "float16": "float16", "bool": "bool",
    "int8": "int8", "int16": "int16", "int32": "int32", "int64": "int64",
    "uint8": "uint8", "uint16": "uint16", "uint32": "uint32", "uint64": "uint64", "string": "object",
}  # fmt: skip
_LEVELS: Final = {
    "off": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
}

ort.set_default_logger_severity(_LOG_FATAL)


@dataclass(frozen=True, slots=True)
class OnnxRuntimeOptions(RuntimeOptions):
    """ONNX Runtime's options; ``threads`` are those within an operator."""

    inter_op_threads: int = 1
    """Operators that run at the same time; above 1 the graph is executed in parallel."""
    providers: tuple[str, ...] = ("CPUExecutionProvider",)
    """Execution providers, the preferred one first."""
    graph_optimization: Literal["off", "basic", "extended", "all"] = "all"


class OnnxRuntime:
    """The driver."""

    name: Final = _NAME

    @property
    def version(self) -> str:
        """The installed ``onnxruntime``."""
        return str(ort.__version__)

    def options(self, values: Mapping[str, str]) -> OnnxRuntimeOptions:
        return parse_options(OnnxRuntimeOptions, _NAME, values)

    def load(self, artifact: Path, options: RuntimeOptions | None = None) -> BoundSession:
        check_file(artifact, "onnx")
        engine = _open(artifact, artifact, _session_options(options), _providers(options))
        return _bind(engine, artifact)

    def load_tapped(self, artifact: Path, options: RuntimeOptions | None = None) -> BoundSession:
        check_file(artifact, "onnx")
        model, taps = tapped_model(artifact)
        engine = _open(artifact, model, _session_options(options), _providers(options))
        return _bind_tapped(engine, artifact, taps)

    def profile(
        self,
        artifact: Path,
        inputs: Mapping[str, Array],
        options: RuntimeOptions | None = None,
        runs: int = 50,
    ) -> tuple[OperatorTime, ...]:
        check_file(artifact, "onnx")
        settings = _session_options(options)
        settings.enable_profiling = True
        with tempfile.TemporaryDirectory(prefix="edgeml-profile-") as folder:
            settings.profile_file_prefix = str(Path(folder) / "profile")
            engine = _open(artifact, artifact, settings, _providers(options))
            with _bind(engine, artifact) as session:
                for _ in range(runs + 1):
                    session.run(inputs)
            events = json.loads(Path(engine.end_profiling()).read_text())
        return _operator_times(events)


def _operator_times(events: list[dict[str, Any]]) -> tuple[OperatorTime, ...]:
    """Give the mean of each node's kernel times, the first run left out."""
    found: dict[str, tuple[str, list[int]]] = {}
    for event in events:
        if event.get("cat") != "Node" or not event["name"].endswith("_kernel_time"):
            continue
        details = event["args"]
        name = event["name"].removesuffix("_kernel_time")
        kind = f"{details['op_name']} · {_input_types(details)}"
        found.setdefault(name, (kind, []))[1].append(event["dur"])
    return tuple(
        OperatorTime(name, kind, sum(times[1:]) / max(1, len(times) - 1))
        for name, (kind, times) in found.items()
    )


def _input_types(details: dict[str, Any]) -> str:
    types = [next(iter(part)) for part in details.get("input_type_shape", []) if part]
    return types[0] if types else ""


def _session_options(options: RuntimeOptions | None) -> Any:
    chosen = as_options(OnnxRuntimeOptions, _NAME, options)
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = chosen.threads
    settings.inter_op_num_threads = chosen.inter_op_threads
    if chosen.inter_op_threads > 1:
        settings.execution_mode = ort.ExecutionMode.ORT_PARALLEL
    settings.graph_optimization_level = _LEVELS[chosen.graph_optimization]
    settings.log_severity_level = _LOG_FATAL
    return settings


def _providers(options: RuntimeOptions | None) -> list[str]:
    chosen = as_options(OnnxRuntimeOptions, _NAME, options).providers
    available = ort.get_available_providers()
    missing = [provider for provider in chosen if provider not in available]
    if missing or not chosen:
        raise UsageError(
            f"onnxruntime {ort.__version__} has no provider {', '.join(missing) or '(none named)'}; "
            f"it has: {', '.join(available)}"
        )
    return list(chosen)


def _open(artifact: Path, model: Path | bytes, settings: Any, providers: list[str]) -> Any:
    """Give an InferenceSession of ``model``: the artifact, or a changed copy of it in memory."""
    try:
        source = model if isinstance(model, bytes) else str(model)
        # Without fallback: it would print to stdout and run on another provider than asked for.
        return ort.InferenceSession(source, settings, providers=providers, enable_fallback=0)
    except _UNREADABLE as error:
        raise ModelFileError(
            f"{artifact}: ONNX Runtime cannot read it ({engine_text(error)}); the file may be cut short"
        ) from error
    except _REFUSALS as error:
        raise _refusal(artifact, engine_text(error, 600)) from error


def _refusal(artifact: Path, text: str) -> ModelFileError | InferenceError:
    if "xternal data" in text:
        return ModelFileError(
            f"{artifact}: the file with its weights is missing or outside its folder: {text}"
        )
    if "is not a registered function/op" in text:
        operator = text.partition("is not a registered")[0].rpartition("rror: ")[2].rpartition("(")[0]
        domain = operator.rpartition(":")[0] or "ai.onnx"
        return InferenceError(
            f"{artifact}: needs operator domain {domain} (operator {operator.rpartition(':')[2]}), which "
            "ONNX Runtime does not have; export the model without it"
        )
    return InferenceError(f"{artifact}: ONNX Runtime refuses the model: {text}")


def _quantization(engine: Any, artifact: Path) -> dict[str, Quantization]:
    return quantization_table(engine.get_modelmeta().custom_metadata_map.get("edgeml.quantization"), artifact)


def _specs(artifact: Path, arguments: list[Any], table: Mapping[str, Quantization]) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec(
            part.name,
            tuple(side if isinstance(side, int) and side >= 0 else None for side in part.shape),
            _dtype(artifact, part),
            quantization_of(table, part.name, _dtype(artifact, part)),
        )
        for part in arguments
    )


def _dtype(artifact: Path, part: Any) -> str:
    kind = str(part.type)
    if kind.startswith("tensor("):
        found = _DTYPES.get(kind.removeprefix("tensor(").removesuffix(")"))
        if found:
            return found
    raise InferenceError(
        f"{artifact}: {part.name!r} is a {kind}, which numpy cannot hold; export the model with plain "
        "tensors (for scikit-learn classifiers: zipmap=False)"
    )


def _bind(engine: Any, artifact: Path) -> BoundSession:
    table = _quantization(engine, artifact)
    inputs = _specs(artifact, engine.get_inputs(), table)
    outputs = _specs(artifact, engine.get_outputs(), table)
    names = [spec.name for spec in inputs]
    results = [spec.name for spec in outputs]
    # InferenceSession.run checks names and owners again, which is done before this is called.
    invoke = getattr(engine, "_sess", engine).run
    del engine

    def call(arrays: list[Array]) -> list[Array]:
        try:
            return list(invoke(results, dict(zip(names, arrays, strict=True)), None))
        except _REFUSALS as error:
            raise _failure(error) from error

    def call_one(array: Array) -> Array:
        try:
            return cast("Array", invoke(results, {name: array}, None)[0])
        except _REFUSALS as error:
            raise _failure(error) from error

    def release() -> None:
        nonlocal invoke
        invoke = closed

    name = names[0] if names else ""
    return BoundSession(inputs, outputs, bind(inputs, outputs, call, call_one), release)


def _bind_tapped(engine: Any, artifact: Path, taps: tuple[Tap, ...]) -> BoundSession:
    table = _quantization(engine, artifact)
    inputs = _specs(artifact, engine.get_inputs(), table)
    numeric = {part.name: part for part in engine.get_outputs() if _is_numeric(part)}
    read = [tap for tap in taps if tap.tensor in numeric]
    tensors = tuple(
        TensorSpec(
            tap.name,
            spec.shape,
            spec.dtype,
            tap.quantization or quantization_of(table, tap.name, spec.dtype),
        )
        for tap in read
        for spec in _specs(artifact, [numeric[tap.tensor]], {})
    )
    names, wanted = [spec.name for spec in inputs], [tap.tensor for tap in read]
    invoke = engine.run

    def call(arrays: list[Array]) -> list[Array]:
        try:
            return list(invoke(wanted, dict(zip(names, arrays, strict=True))))
        except _REFUSALS as error:
            raise _failure(error) from error

    def release() -> None:
        nonlocal invoke
        invoke = closed

    del engine
    return bind_tapped(inputs, tensors, call, release)


def _is_numeric(part: Any) -> bool:
    kind = str(part.type).removeprefix("tensor(").removesuffix(")")
    return _DTYPES.get(kind, "object") != "object"


def _failure(error: BaseException) -> InferenceError:
    return InferenceError(f"ONNX Runtime failed while it ran the model: {engine_text(error)}")
