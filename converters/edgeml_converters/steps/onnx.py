"""From ONNX: to OpenVINO IR in this process, to TFLite through the worker ``onnx2tf``."""

from __future__ import annotations

from typing import Final

from edgeml.converter import ConversionStep, StepRequest, StepResult
from edgeml.words import Scheme
from edgeml_converters.steps import openvino_ir
from edgeml_converters.steps.step import FormatStep, distributions, state

TRANSLATION_COST: Final = 30.0
"""An artifact quantized for another engine comes after one that was quantized for this one."""


def _to_openvino(request: StepRequest) -> StepResult:
    return openvino_ir.convert(request, "onnx-to-openvino")


def _translation(scheme: Scheme) -> FormatStep:
    return FormatStep(
        f"onnx-to-openvino-{scheme.replace('_', '-')}",
        state("onnx", scheme),
        state("openvino", scheme),
        distributions("openvino"),
        TRANSLATION_COST,
        _to_openvino,
    )


STEPS: tuple[ConversionStep, ...] = (
    FormatStep(
        "onnx-to-openvino", state("onnx"), state("openvino"), distributions("openvino"), 1.0, _to_openvino
    ),
    _translation("int8_static"),
)
