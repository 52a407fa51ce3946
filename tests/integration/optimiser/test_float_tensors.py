"""Activations that static int8 leaves in float bring back what it had ruined."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeml.converter import StepRequest
from edgeml.words import RuntimeName
from tests.integration.optimiser import broken_int8
from tests.integration.quantize_models import Samples, only, outputs, run_step, step, top1

OUTLIERS = {
    "litert": ("pool_input_nhwc", "pool_output_nhwc"),
    "onnxruntime": ("conv2_out", "relu2", "pooled"),
    "openvino": ("relu2", "pooled"),
}
"""The activations through which the outliers pass, as each quantizer's own graph names them."""


def source(runtime: RuntimeName, folder: Path) -> Path:
    if runtime == "litert":
        return broken_int8.digits_tflite(folder)
    path = broken_int8.digits_onnx(folder)
    if runtime == "onnxruntime":
        return path
    (folder / "ir").mkdir()
    return step("onnx-to-openvino").run(StepRequest(path, folder / "ir")).artifact


@pytest.mark.parametrize("runtime", ["litert", "onnxruntime", "openvino"])
def test_outliers_ruin_int8_and_a_stretch_in_float_mends_it(runtime: RuntimeName, tmp_path: Path) -> None:
    model, (pictures, labels) = source(runtime, tmp_path), broken_int8.held_out_digits()
    calibration = Samples("image", broken_int8.calibration_digits())

    def accuracy(artifact: Path) -> float:
        return top1(only(outputs(runtime, artifact, pictures)), labels)

    name = f"{runtime}-int8-static"
    plain = run_step(name, model, tmp_path / "plain", calibration)
    mixed = run_step(name, model, tmp_path / "mixed", calibration, float_tensors=OUTLIERS[runtime])
    assert accuracy(plain.artifact) < 0.5
    assert accuracy(mixed.artifact) >= accuracy(model) - 0.005
    assert mixed.notes[-1] in {f"{count} of 4 operators with weights quantized" for count in (2, 3)}
    assert not mixed.findings
