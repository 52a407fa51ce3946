"""From TFLite: to OpenVINO IR in this process, to ONNX through the worker ``tensorflow``."""

from __future__ import annotations

from typing import Final

from edgeml.converter import ConversionStep, StepRequest, StepResult
from edgeml.words import Scheme
from edgeml_converters.steps import openvino_ir, tflite_file
from edgeml_converters.steps.step import FormatStep, distributions, state, tool_errors

TRANSLATION_COST: Final = 40.0
"""An artifact quantized for another engine comes after one that was quantized for this one."""


def _to_openvino(request: StepRequest) -> StepResult:
    with tool_errors("tflite-to-openvino", request.source):
        names = tflite_file.names(request.source)
    return openvino_ir.convert(request, "tflite-to-openvino", inputs=names.inputs, outputs=names.outputs)


def _translation(scheme: Scheme) -> FormatStep:
    return FormatStep(
        f"tflite-to-openvino-{scheme.replace('_', '-')}",
        state("tflite", scheme),
        state("openvino", scheme),
        distributions("openvino", "ai-edge-litert"),
        TRANSLATION_COST,
        _to_openvino,
    )


STEPS: tuple[ConversionStep, ...] = (
    FormatStep(
        "tflite-to-openvino",
        state("tflite"),
        state("openvino"),
        distributions("openvino", "ai-edge-litert"),
        1.0,
        _to_openvino,
    ),
    _translation("int8_static"),
)
