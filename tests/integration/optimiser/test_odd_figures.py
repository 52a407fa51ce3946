"""Figures that are infinite or none: what JSON has no word for, and what no gate may hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

from edgeml import typed_json
from edgeml.arrays import Array
from edgeml.bundle import open_bundle
from edgeml.cli import main

INT8 = "onnxruntime-int8_static"


def edgeml(*words: object) -> Any:
    return CliRunner().invoke(main, list(map(str, words)))


@pytest.fixture
def regression(tmp_path: Path) -> Path:
    """Write a regression whose labels are its own outputs: in float it errs by nothing at all."""
    _write(tmp_path / "model.onnx", ["MatMul"])
    samples = np.random.default_rng(1).normal(size=(40, 4)).astype(np.float32)
    np.savez(tmp_path / "data.npz", x=samples, y=_outputs(tmp_path, samples), part=np.arange(40) % 2)
    return tmp_path


def _write(path: Path, kinds: list[str]) -> None:
    weights = np.abs(np.random.default_rng(0).normal(size=(4, 4))).astype(np.float32)
    names = [f"t{place}" for place in range(len(kinds))]
    nodes = [
        helper.make_node(kind, [before, "w"] if kind == "MatMul" else [before], [after], name=after)
        for kind, before, after in zip(kinds, ["x", *names], [*names[:-1], "y"], strict=False)
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in "xy"]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [numpy_helper.from_array(weights, "w")])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(made, path)


def _outputs(folder: Path, samples: Array) -> Array:
    engine = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    return np.concatenate([engine.run(None, {"x": one[None]})[0] for one in samples])


def converted(folder: Path, *words: object) -> Any:
    return edgeml(
        *("convert", folder / "model.onnx", "--runtime", "onnxruntime", "--no-measure", "--json"),
        *("--calibration", folder / "data.npz:x", "--evaluate", folder / "data.npz:x,y"),
        *("--metric", "mse", "--slices", "part", "-o", folder / "out.edgeml", *words),
    )


def test_an_infinite_loss_is_told_in_json_and_holds_no_gate(regression: Path) -> None:
    done = converted(regression)
    assert done.exit_code == 0, done.output
    typed_json.parse(done.stdout.encode(), "--json")
    record = typed_json.parse(open_bundle(regression / "out.edgeml").read("record.json"), "the record")
    (int8,) = (row for row in record["variants"] if row["name"] == INT8)
    assert [one["drop_points"] for one in int8["slices"]] == [None, None]
    assert all(one["value"] > one["reference"] == 0.0 for one in int8["slices"])
    for gate in ("--max-drop", "--max-slice-drop"):
        held = edgeml("check", regression / "out.edgeml", "--variant", INT8, gate, 1000, "--json")
        assert held.exit_code == 3
        typed_json.parse(held.stdout.encode(), "--json")


def test_a_conversion_without_bounds_is_reproduced(regression: Path) -> None:
    done = converted(regression, "--max-drop", "inf", "--budget-s", "inf")
    assert done.exit_code == 0, done.output
    again = edgeml("reproduce", regression / "out.edgeml", "--model", regression / "model.onnx", "--json")
    assert again.exit_code == 0, again.output
    assert json.loads(again.stdout)["same"] is True


def test_a_model_that_gives_nan_for_a_golden_sample_holds_against_itself(regression: Path) -> None:
    _write(regression / "model.onnx", ["MatMul", "Log"])
    samples = np.abs(np.random.default_rng(1).normal(size=(40, 4))).astype(np.float32)
    samples[0] *= -1
    np.savez(regression / "odd.npz", x=samples)
    words = ("--runtime", "onnxruntime", "--no-measure", "-o", regression / "out.edgeml")
    done = edgeml("convert", regression / "model.onnx", "--evaluate", regression / "odd.npz:x", *words)
    assert done.exit_code == 0, done.output
    assert "nan-outputs" in done.stdout
    held = edgeml("selftest", regression / "out.edgeml")
    assert held.exit_code == 0, held.output


def test_outputs_of_nan_have_no_error_that_a_gate_could_hold(regression: Path) -> None:
    _write(regression / "model.onnx", ["MatMul", "Log", "MatMul"])
    samples = np.abs(np.random.default_rng(1).normal(size=(40, 4))).astype(np.float32)
    np.savez(regression / "good.npz", x=samples)
    samples[20:] *= -1
    np.savez(regression / "data.npz", x=samples, y=samples, part=np.arange(40) % 2)
    done = converted(regression, "--calibration", regression / "good.npz:x", "--max-drop", 1)
    assert done.exit_code == 1
    assert "the error over 40 samples is nan" in done.stderr
