"""Quantization inside TFLite without TensorFlow: LiteRT's own calibration, AI Edge Quantizer's recipes."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import numpy as np

from edgeml.converter import ConversionStep, StepRequest, StepResult
from edgeml.findings import Finding
from edgeml.tensors import TensorSpec
from edgeml.words import ARTIFACT_FILE, IoDtype, Scheme
from edgeml_converters.quantize import aeq, tflite_model
from edgeml_converters.quantize.step import CheckedSamples, judge_coverage, quantization_step
from edgeml_converters.steps import tflite_file

WRAPPER_VERSIONS: Final = ((2, 3), (2, 4))
"""ai-edge-litert versions, from the first to before the second, whose calibration module was tried here.
It is private: outside these, or where it does not import, AI Edge Quantizer takes its place."""
_ACTIVATIONS: Final = {"int8_static": (np.int8, np.int32), "int16x8": (np.int16, np.int64)}
"""dtype of activations and of biases."""
_TFLITE_TYPE: Final = {"int8": 9, "uint8": 3}
"""Tensor type numbers of the TFLite schema."""
_TOOLS: Final = ("ai-edge-litert", "ai-edge-quantizer")
_WEIGHTS: Final = {
    "float16": frozenset({"float16"}),
    "int4_weights": frozenset({"int4"}),
}
"""What the weights are held in; int8 unless listed."""


def wrapper() -> Any | None:
    """Give LiteRT's calibration class, or ``None`` where it is missing or of a version not known."""
    version = tuple(int(part) for part in metadata.version("ai-edge-litert").split(".")[:2])
    if not WRAPPER_VERSIONS[0] <= version < WRAPPER_VERSIONS[1]:
        return None
    try:
        from ai_edge_litert import _pywrap_tensorflow_lite_calibration_wrapper as module
    except ImportError:
        return None
    found = getattr(module, "CalibrationWrapper", None)
    return found if all(hasattr(found, name) for name in ("Prepare", "FeedTensor", "QuantizeModel")) else None


def _static(scheme: Scheme) -> Callable[[StepRequest, str], StepResult]:
    def run(request: StepRequest, step: str) -> StepResult:
        content, parsed, notes = _prepared(request)
        inputs = tflite_model.inputs(parsed)
        activations = tflite_model.activations(parsed)
        del parsed
        samples = CheckedSamples(step, request.calibration, inputs)
        method, io_dtype = request.settings.method, request.settings.io_dtype
        tool = wrapper()
        findings: tuple[Finding, ...] = ()
        used: tuple[str, ...] = ("ai-edge-litert",)
        if tool is not None and method != "percentile":
            quantized, findings = _by_wrapper(tool, request, scheme, content, inputs, samples)
        else:
            found = aeq.activation_ranges(content, activations, inputs, samples, method)
            quantized = aeq.by_recipe(content, scheme, found)
            if io_dtype != "float32":
                quantized = _with_integer_ports(quantized, io_dtype, request.output_dir)
            used = _TOOLS
        notes = (*notes, f"ranges: {'percentile' if method == 'percentile' else 'min/max'} by {used[-1]}")
        return _result(request, step, scheme, quantized, notes, findings, used)

    return run


def _recipe(scheme: Scheme) -> Callable[[StepRequest, str], StepResult]:
    def run(request: StepRequest, step: str) -> StepResult:
        content, _, notes = _prepared(request)
        quantized = aeq.by_recipe(content, scheme)
        return _result(request, step, scheme, quantized, notes, (), _TOOLS)

    return run


def _prepared(request: StepRequest) -> tuple[bytes, Any, tuple[str, ...]]:
    """Give the model with a signature and static shapes, as bytes and parsed, and what was changed."""
    with tempfile.TemporaryDirectory(dir=request.output_dir) as folder:
        path = Path(folder) / ARTIFACT_FILE["tflite"]
        notes = tflite_file.prepare(request.source, path, request.input_shapes)
        content = path.read_bytes()
    parsed = tflite_model.parse(content)
    tflite_model.refuse_if_quantized(parsed, request.source)
    return content, parsed, notes


def _by_wrapper(
    tool: Any,
    request: StepRequest,
    scheme: Scheme,
    content: bytes,
    inputs: tuple[TensorSpec, ...],
    samples: CheckedSamples,
) -> tuple[bytes, tuple[Finding, ...]]:
    engine = tool(content, [], [])
    engine.Prepare()
    for sample in samples:
        engine.FeedTensor([sample[spec.name] for spec in inputs])
    ports = np.dtype(request.settings.io_dtype).num
    activations, biases = (np.dtype(kind).num for kind in _ACTIVATIONS[scheme])
    per_tensor = not request.settings.per_channel

    def quantize(*, allow_float: bool) -> bytes:
        return bytes(
            engine.QuantizeModel(ports, ports, allow_float, activations, biases, per_tensor, per_tensor)
        )

    try:
        return quantize(allow_float=False), ()
    except (RuntimeError, ValueError) as error:
        strict = str(error).strip()
    # the tool's own way out: operators it has no integer kernel for stay in float
    made = quantize(allow_float=True)
    finding = Finding(
        "operators-kept-in-float",
        "warning",
        request.source.name,
        f"some operators have no integer kernel and stay in float: {strict[:200]}",
        "look at the latency before this variant is used",
    )
    return made, (finding,)


def _with_integer_ports(model: bytes, io_dtype: IoDtype, folder: Path) -> bytes:
    from ai_edge_litert import _pywrap_modify_model_interface as interface

    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        source, target = Path(scratch) / "float.tflite", Path(scratch) / "integer.tflite"
        source.write_bytes(model)
        kind = _TFLITE_TYPE[io_dtype]
        interface.modify_model_interface(str(source), str(target), kind, kind)
        return target.read_bytes()


def _result(
    request: StepRequest,
    step: str,
    scheme: Scheme,
    quantized: bytes,
    notes: tuple[str, ...],
    findings: tuple[Finding, ...],
    tools: tuple[str, ...],
) -> StepResult:
    parsed = tflite_model.parse(quantized)
    covered = tflite_model.coverage(parsed, _WEIGHTS.get(scheme, frozenset({"int8"})))
    findings = (*findings, *judge_coverage(step, request.source, covered))
    artifact = request.output_dir / ARTIFACT_FILE["tflite"]
    artifact.write_bytes(quantized)
    return StepResult(
        artifact,
        findings=findings,
        notes=(*notes, f"{covered.quantized} of {covered.total} operators with weights quantized"),
        ranges=tflite_model.ranges(parsed),
        versions={name: metadata.version(name) for name in tools},
    )


STEPS: tuple[ConversionStep, ...] = (
    quantization_step("litert", "tflite", "int8_static", ("ai-edge-litert",), 2.0, _static("int8_static")),
    quantization_step("litert", "tflite", "int16x8", ("ai-edge-litert",), 2.0, _static("int16x8")),
    quantization_step("litert", "tflite", "int8_dynamic", _TOOLS, 1.0, _recipe("int8_dynamic")),
    quantization_step("litert", "tflite", "int8_weights", _TOOLS, 1.0, _recipe("int8_weights")),
    quantization_step("litert", "tflite", "int4_weights", _TOOLS, 1.0, _recipe("int4_weights")),
    quantization_step("litert", "tflite", "float16", _TOOLS, 1.0, _recipe("float16")),
)
