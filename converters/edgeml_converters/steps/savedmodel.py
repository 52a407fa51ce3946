"""From SavedModel: to OpenVINO IR without TensorFlow, to TFLite and ONNX in the worker ``tensorflow``."""

from __future__ import annotations

from dataclasses import replace

from edgeml.converter import ConversionStep, Requirement, StepRequest, StepResult
from edgeml.findings import Finding
from edgeml.words import Format
from edgeml_converters.steps import openvino_ir
from edgeml_converters.steps.step import FormatStep, distributions, state
from edgeml_converters.steps.worker_step import convert_in_worker

_TENSORFLOW = Requirement("worker", "tensorflow")


def _to_openvino(request: StepRequest) -> StepResult:
    result = openvino_ir.convert(request, "savedmodel-to-openvino")
    if request.samples is None:
        return result
    unchecked = Finding(
        "source-not-run",
        "warning",
        "savedmodel-to-openvino",
        "OpenVINO read the SavedModel without TensorFlow, so the source's own outputs are not known",
        "compare with a TFLite or ONNX conversion of the same model, which TensorFlow checks",
    )
    return replace(result, findings=(*result.findings, unchecked))


def _convert(request: StepRequest, target: Format) -> StepResult:
    made = convert_in_worker("tensorflow", request, ("savedmodel", target))
    return StepResult(
        made.artifact, source_outputs=made.source_outputs, notes=made.notes, versions=made.versions
    )


def _to_tflite(request: StepRequest) -> StepResult:
    return _convert(request, "tflite")


def _to_onnx(request: StepRequest) -> StepResult:
    return _convert(request, "onnx")


STEPS: tuple[ConversionStep, ...] = (
    FormatStep(
        "savedmodel-to-openvino",
        state("savedmodel"),
        state("openvino"),
        distributions("openvino"),
        2.0,
        _to_openvino,
    ),
    FormatStep("savedmodel-to-tflite", state("savedmodel"), state("tflite"), (_TENSORFLOW,), 8.0, _to_tflite),
    FormatStep("savedmodel-to-onnx", state("savedmodel"), state("onnx"), (_TENSORFLOW,), 8.0, _to_onnx),
)
