"""``edgeml sensitivity``: which activations one range of 8 bits cannot hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from edgeml.cli import main
from tests.integration.optimiser import broken_int8
from tests.integration.quantize_models import Samples, run_step

RUINED = {
    "litert": {"pool_input_nhwc", "pool_output_nhwc"},
    "onnxruntime": {"conv2_out", "relu2", "pooled"},
    "openvino": {"relu2"},
}
"""What the outliers pass through, as far as each quantizer gives it a range."""


def edgeml(*words: object) -> Any:
    return CliRunner().invoke(main, ["sensitivity", *map(str, words)])


@pytest.fixture
def calibration(tmp_path: Path) -> str:
    np.savez(tmp_path / "calibration.npz", x=np.concatenate(broken_int8.calibration_digits()))
    return f"{tmp_path}/calibration.npz:x"


@pytest.mark.parametrize("runtime", ["litert", "onnxruntime", "openvino"])
def test_what_holds_outliers_stands_first(runtime: str, calibration: str, tmp_path: Path) -> None:
    model = (broken_int8.digits_tflite if runtime == "litert" else broken_int8.digits_onnx)(tmp_path)
    done = edgeml(model, "--calibration", calibration, "--runtime", runtime, "--json")
    assert done.exit_code == 0, done.output
    (found,) = json.loads(done.stdout)["runtimes"]
    assert (found["runtime"], found["reason"]) == (runtime, None)
    worst = found["activations"][: len(RUINED[runtime])]
    assert {one["tensor"] for one in worst} == RUINED[runtime]
    assert all(one["sqnr_db"] < 1.0 and one["range"][1] > 1000 for one in worst)
    rest = [one["sqnr_db"] for one in found["activations"][len(worst) :]]
    assert rest == sorted(rest)
    assert rest[0] > 25.0


def test_a_person_sees_bars_and_as_many_as_asked_for(calibration: str, tmp_path: Path) -> None:
    model = broken_int8.digits_onnx(tmp_path)
    done = edgeml(model, "--calibration", calibration, "--runtime", "onnxruntime", "--top", 4)
    assert done.exit_code == 0, done.output
    lines = [line for line in done.stdout.splitlines() if "▇" in line]
    assert [line.split()[0] for line in lines] == ["conv2_out", "relu2", "pooled", "conv1_out"]
    assert lines[0].count("▇") == 1
    assert lines[3].count("▇") > 12


def test_data_are_needed(tmp_path: Path) -> None:
    done = edgeml(broken_int8.digits_onnx(tmp_path))
    assert done.exit_code == 2
    assert "give --calibration" in done.stderr


def test_a_model_that_is_quantized_already_is_refused(calibration: str, tmp_path: Path) -> None:
    samples = Samples("image", broken_int8.calibration_digits())
    made = run_step("onnxruntime-int8-static", broken_int8.DIGITS / "digits.onnx", tmp_path / "made", samples)
    done = edgeml(made.artifact, "--calibration", calibration, "--runtime", "onnxruntime")
    assert done.exit_code == 1
    assert "onnxruntime: failed" in done.stdout
    assert "no runtime could be ranked" in done.stderr
