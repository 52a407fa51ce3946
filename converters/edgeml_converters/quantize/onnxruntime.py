"""Quantization inside ONNX: QDQ for static int8, and weights held small."""

from __future__ import annotations

from importlib import metadata
from typing import Any, Final

from edgeml.converter import ConversionStep, StepRequest, StepResult
from edgeml.findings import Finding
from edgeml.words import ARTIFACT_FILE
from edgeml_converters.quantize import calibration, onnx_model, qdq
from edgeml_converters.quantize.step import CheckedSamples, judge_coverage, quantization_step

_TOOLS: Final = ("onnx", "onnxruntime")


def _int8_static(request: StepRequest, step: str) -> StepResult:
    import onnx

    model, notes = onnx_model.prepared(request)
    samples = CheckedSamples(step, request.calibration, onnx_model.inputs(model))
    ranges = calibration.activation_ranges(model, samples, request.settings.method)
    made = onnx.ModelProto()
    made.CopyFrom(model)
    made = qdq.insert(made, ranges, request.settings)
    covered = onnx_model.coverage(model, made)
    findings = judge_coverage(step, request.source, covered)
    if request.settings.io_dtype != "float32":
        qdq.integer_ports(made, request.settings.io_dtype)
    notes = (*notes, f"{covered.quantized} of {covered.total} operators with weights quantized")
    return _result(request, made, notes, findings, ranges)


def _result(
    request: StepRequest,
    model: Any,
    notes: tuple[str, ...],
    findings: tuple[Finding, ...],
    ranges: dict[str, tuple[float, float]],
) -> StepResult:
    import onnx

    artifact = request.output_dir / ARTIFACT_FILE["onnx"]
    onnx.save_model(model, str(artifact))
    return StepResult(
        artifact,
        findings=findings,
        notes=notes,
        ranges=ranges,
        versions={name: metadata.version(name) for name in _TOOLS},
    )


STEPS: tuple[ConversionStep, ...] = (
    quantization_step("onnxruntime", "onnx", "int8_static", _TOOLS, 5.0, _int8_static),
)
