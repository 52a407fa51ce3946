"""From ONNX: to OpenVINO IR in this process, to TFLite through the worker ``onnx2tf``."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Final

from edgeml.converter import ConversionStep, Requirement, StepRequest, StepResult
from edgeml.errors import ConversionError, EdgemlError
from edgeml_converters.formats import onnx_file, tflite_file
from edgeml_converters.steps import openvino_ir
from edgeml_converters.steps.step import FormatStep, distributions, state, tool_errors
from edgeml_converters.steps.worker_step import convert_in_worker

TRANSLATION_COST: Final = 30.0
"""An artifact quantized for another engine comes after one that was quantized for this one."""


def _to_openvino(request: StepRequest) -> StepResult:
    _refuse_ml_operators(request.source)
    try:
        return openvino_ir.convert(request, "onnx-to-openvino")
    except ConversionError as error:
        raise with_unknown_operators(error, request.source) from error


def _refuse_ml_operators(source: Path) -> None:
    found = sorted(onnx_file.operators(source, onnx_file.ML_DOMAIN))
    if found:
        names = f"operators {', '.join(found)}" if len(found) > 1 else f"operator {found[0]}"
        exist = "exist" if len(found) > 1 else "exists"
        raise ConversionError(
            f"{source.name}: {names} ({onnx_file.ML_DOMAIN}) {exist} only in onnxruntime; use that runtime, "
            f"or a model of matrix products (linear, MLP) for the others"
        )


def with_unknown_operators(error: EdgemlError, source: Path) -> EdgemlError:
    """Say where the operators stand that an engine refused and that are not ONNX's own, if those are why."""
    found = onnx_file.unknown_operators(source)
    unknown = [told for operator, told in found.items() if operator in str(error)]
    if not unknown:
        return error
    return ConversionError(
        f"{source.name}: unknown operator {', '.join(unknown)}; "
        "export the model with standard operators in its place"
    )


def _to_tflite(request: StepRequest) -> StepResult:
    step = "onnx-to-tflite"
    _refuse_ml_operators(request.source)
    with tempfile.TemporaryDirectory(prefix="edgeml-onnx-") as scratch, tool_errors(step, request.source):
        static = Path(scratch) / "model.onnx"
        notes = onnx_file.prepare(request.source, static, request.input_shapes)
        ports = onnx_file.simplify(static)
        made = convert_in_worker(
            "onnx2tf",
            replace(request, samples=None),
            ("onnx", "tflite"),
            source=static,
            extra={"inputs": [port.name for port in ports.inputs]},
        )
        tflite_file.require_signature(made.artifact, ports.inputs, ports.outputs, step)
    return replace(made.result(), notes=notes)


STEPS: tuple[ConversionStep, ...] = (
    FormatStep(
        "onnx-to-openvino", state("onnx"), state("openvino"), distributions("openvino"), 1.0, _to_openvino
    ),
    FormatStep(
        "onnx-to-tflite",
        state("onnx"),
        state("tflite"),
        (Requirement("worker", "onnx2tf"), *distributions("onnx", "onnxslim", "ai-edge-litert")),
        9.0,
        _to_tflite,
    ),
    FormatStep(
        "onnx-to-openvino-int8-static",
        state("onnx", "int8_static"),
        state("openvino", "int8_static"),
        distributions("openvino"),
        TRANSLATION_COST,
        _to_openvino,
    ),
)
