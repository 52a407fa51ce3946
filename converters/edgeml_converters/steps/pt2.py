"""From an exported PyTorch program: to ONNX, TFLite and OpenVINO IR, all in the worker ``torch``."""

from __future__ import annotations

from edgeml.converter import ConversionStep, Requirement, StepRequest, StepResult
from edgeml.words import Format
from edgeml_converters.formats import tflite_file
from edgeml_converters.steps.step import FormatStep, distributions, state, tool_errors
from edgeml_converters.steps.worker_step import Made, convert_in_worker

_TORCH = Requirement("worker", "torch")


def _convert(request: StepRequest, target: Format) -> StepResult:
    made = convert_in_worker("torch", request, ("pt2", target))
    if target == "tflite":
        with tool_errors("pt2-to-tflite", request.source):
            tflite_file.rename(made.artifact, made.inputs, made.outputs)
    return result(made)


def result(made: Made) -> StepResult:
    """Give the step's result for what a worker made."""
    return StepResult(
        made.artifact, source_outputs=made.source_outputs, notes=made.notes, versions=made.versions
    )


def _to_onnx(request: StepRequest) -> StepResult:
    return _convert(request, "onnx")


def _to_tflite(request: StepRequest) -> StepResult:
    return _convert(request, "tflite")


def _to_openvino(request: StepRequest) -> StepResult:
    return _convert(request, "openvino")


STEPS: tuple[ConversionStep, ...] = (
    FormatStep("pt2-to-onnx", state("pt2"), state("onnx"), (_TORCH,), 6.0, _to_onnx),
    FormatStep(
        "pt2-to-tflite",
        state("pt2"),
        state("tflite"),
        (_TORCH, *distributions("ai-edge-litert")),
        10.0,
        _to_tflite,
    ),
    FormatStep("pt2-to-openvino", state("pt2"), state("openvino"), (_TORCH,), 6.0, _to_openvino),
)
