"""``edgeml sensitivity``: which activations one range of 8 bits cannot hold."""

from __future__ import annotations

import json
import re
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


def test_the_whole_ranking_is_drawn_on_a_page_that_stands_alone(calibration: str, tmp_path: Path) -> None:
    model, page = broken_int8.digits_onnx(tmp_path), tmp_path / "made" / "ranking.html"
    words = (model, "--calibration", calibration, "--runtime", "onnxruntime", "--top", 1, "--json")
    done = edgeml(*words, "--plot", page)
    assert done.exit_code == 0, done.output
    html = page.read_text()
    (found,) = json.loads(done.stdout)["runtimes"]
    drawn = re.findall(r'<span class="label".*?>(.*?)</span>.*class="value">(.*?) dB</span>', html)
    assert [name for name, _ in drawn] == [one["tensor"] for one in found["activations"]]
    for (_, value), one in zip(drawn, found["activations"], strict=True):
        assert float(value) == pytest.approx(one["sqnr_db"], abs=0.06)
    assert 'name="viewport"' in html
    assert "://" not in html


def test_what_was_drawn_is_named_for_people(calibration: str, tmp_path: Path) -> None:
    page = tmp_path / "ranking.html"
    words = (broken_int8.digits_onnx(tmp_path), "--calibration", calibration, "--runtime", "onnxruntime")
    done = edgeml(*words, "--plot", page)
    assert done.stdout.endswith(f"page  {page}\n")


def test_a_picture_of_another_kind_is_refused(calibration: str, tmp_path: Path) -> None:
    done = edgeml(
        broken_int8.digits_onnx(tmp_path), "--calibration", calibration, "--plot", tmp_path / "a.png"
    )
    assert done.exit_code == 2
    assert "name it *.html" in done.stderr


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
