"""From Keras: to OpenVINO IR in the worker ``keras``, to TFLite and ONNX in the worker ``tensorflow``."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from edgeml.converter import ConversionStep, Requirement, StepRequest, StepResult
from edgeml.words import ARTIFACT_FILE
from edgeml_converters.steps import openvino_ir
from edgeml_converters.steps.step import FormatStep, distributions, state
from edgeml_converters.steps.worker_step import SOURCE_OUTPUTS, convert_in_worker, worker_step


def _to_openvino(request: StepRequest) -> StepResult:
    with tempfile.TemporaryDirectory(prefix="edgeml-keras-") as scratch:
        inner = replace(request, output_dir=Path(scratch))
        made = convert_in_worker("keras", inner, ("keras", "openvino"))
        done = openvino_ir.convert(
            request,
            "keras-to-openvino",
            source=Path(scratch) / ARTIFACT_FILE["openvino"],
            inputs=made.inputs,
            outputs=made.outputs,
            notes=made.notes,
        )
        outputs = None
        if made.source_outputs:
            outputs = request.output_dir / SOURCE_OUTPUTS
            outputs.write_bytes(made.source_outputs.read_bytes())
    return replace(done, source_outputs=outputs, versions={**made.versions, **done.versions})


STEPS: tuple[ConversionStep, ...] = (
    FormatStep(
        "keras-to-openvino",
        state("keras"),
        state("openvino"),
        (Requirement("worker", "keras"), *distributions("openvino")),
        3.0,
        _to_openvino,
    ),
    worker_step("tensorflow", "keras", "tflite", 8.0),
    worker_step("tensorflow", "keras", "onnx", 8.0),
)
