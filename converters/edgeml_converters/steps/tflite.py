"""From TFLite: to OpenVINO IR in this process, to ONNX through the worker ``tensorflow``."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Final

from edgeml.converter import ConversionStep, Requirement, StepRequest, StepResult
from edgeml_converters.formats import onnx_file, tflite_file
from edgeml_converters.steps import openvino_ir
from edgeml_converters.steps.step import FormatStep, distributions, state, tool_errors
from edgeml_converters.steps.worker_step import convert_in_worker

TRANSLATION_COST: Final = 40.0
"""An artifact quantized for another engine comes after one that was quantized for this one."""


def _to_openvino(request: StepRequest) -> StepResult:
    step = "tflite-to-openvino"
    with tempfile.TemporaryDirectory(prefix="edgeml-tflite-") as scratch:
        with tool_errors(step, request.source):
            source = tflite_file.with_old_codes(request.source, Path(scratch) / "model.tflite")
            names = tflite_file.names(source)
            stored = tflite_file.stored(source)
        return openvino_ir.convert(
            request,
            step,
            source=source,
            inputs=names.inputs,
            outputs=names.outputs,
            notes=tuple(f"{name}: made float32, IR keeps no scale" for name in stored),
            stored=stored,
        )


def _to_onnx(request: StepRequest) -> StepResult:
    step = "tflite-to-onnx"
    with tempfile.TemporaryDirectory(prefix="edgeml-tflite-") as scratch, tool_errors(step, request.source):
        static = Path(scratch) / "model.tflite"
        notes = tflite_file.prepare(request.source, static, request.input_shapes)
        names = tflite_file.names(static)
        made = convert_in_worker(
            "tensorflow", replace(request, samples=None), ("tflite", "onnx"), source=static
        )
        onnx_file.rename(made.artifact, names.inputs, names.outputs)
    return replace(made.result(), notes=notes)


STEPS: tuple[ConversionStep, ...] = (
    FormatStep(
        "tflite-to-openvino",
        state("tflite"),
        state("openvino"),
        distributions("openvino", "ai-edge-litert"),
        1.0,
        _to_openvino,
    ),
    FormatStep(
        "tflite-to-onnx",
        state("tflite"),
        state("onnx"),
        (Requirement("worker", "tensorflow"), *distributions("ai-edge-litert", "onnx")),
        7.0,
        _to_onnx,
    ),
    FormatStep(
        "tflite-to-openvino-int8-static",
        state("tflite", "int8_static"),
        state("openvino", "int8_static"),
        distributions("openvino", "ai-edge-litert"),
        TRANSLATION_COST,
        _to_openvino,
    ),
)
