"""From SavedModel: to OpenVINO IR without TensorFlow, to TFLite and ONNX in the worker ``tensorflow``."""

from __future__ import annotations

from dataclasses import replace

from edgeml.converter import ConversionStep, StepRequest, StepResult
from edgeml.findings import Finding
from edgeml_converters.steps import openvino_ir
from edgeml_converters.steps.step import FormatStep, distributions, state
from edgeml_converters.steps.worker_step import worker_step


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


STEPS: tuple[ConversionStep, ...] = (
    FormatStep(
        "savedmodel-to-openvino",
        state("savedmodel"),
        state("openvino"),
        distributions("openvino"),
        2.0,
        _to_openvino,
    ),
    worker_step("tensorflow", "savedmodel", "tflite", 8.0),
    worker_step("tensorflow", "savedmodel", "onnx", 8.0),
)
