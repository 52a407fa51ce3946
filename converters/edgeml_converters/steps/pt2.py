"""From an exported PyTorch program: to ONNX, TFLite and OpenVINO IR, all in the worker ``torch``."""

from __future__ import annotations

from edgeml.converter import ConversionStep, Requirement, StepRequest, StepResult
from edgeml_converters.formats import tflite_file
from edgeml_converters.steps.step import FormatStep, distributions, state, tool_errors
from edgeml_converters.steps.worker_step import convert_in_worker, worker_step


def _to_tflite(request: StepRequest) -> StepResult:
    made = convert_in_worker("torch", request, ("pt2", "tflite"))
    with tool_errors("pt2-to-tflite", request.source):
        tflite_file.rename(made.artifact, made.inputs, made.outputs)
    return made.result()


STEPS: tuple[ConversionStep, ...] = (
    worker_step("torch", "pt2", "onnx", 6.0),
    FormatStep(
        "pt2-to-tflite",
        state("pt2"),
        state("tflite"),
        (Requirement("worker", "torch"), *distributions("ai-edge-litert")),
        10.0,
        _to_tflite,
    ),
    worker_step("torch", "pt2", "openvino", 6.0),
)
