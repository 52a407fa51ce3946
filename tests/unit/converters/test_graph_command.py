"""``edgeml plan``: the path, its needs and its exit code."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
from click.testing import CliRunner, Result
from edgeml_converters.workers.catalogue import WORKERS

from edgeml.cli import main


@pytest.fixture(autouse=True)
def no_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEML_WORKERS_DIR", str(tmp_path / "workers"))
    for name in WORKERS:
        monkeypatch.delenv(f"EDGEML_WORKER_{name.upper()}", raising=False)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    port, real = onnx.helper.make_tensor_value_info, onnx.TensorProto.FLOAT
    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    graph = onnx.helper.make_graph([node], "g", [port("x", real, [1, 4])], [port("y", real, [1, 4])])
    opsets = [onnx.helper.make_opsetid("", 17)]
    path = tmp_path / "model.onnx"
    onnx.save_model(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8), str(path))
    return path


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["plan", *map(str, arguments)])


def test_a_way_that_can_be_run_is_shown_with_its_needs(model: Path) -> None:
    result = run(model, "--to", "openvino:int8_static")
    assert result.exit_code == 0
    assert "onnx/float32 → openvino/float32 → openvino/int8_static" in result.output


def test_a_way_that_lacks_a_worker_says_how_to_get_it_and_fails(model: Path) -> None:
    result = run(model, "--to", "litert")
    assert result.exit_code == 1
    assert "edgeml workers install onnx2tf" in result.output


def test_the_json_holds_a_plan_for_every_runtime(model: Path) -> None:
    found = json.loads(run(model, "--json").output)
    assert found["schema"] == 1
    assert found["source"] == {"path": str(model), "format": "onnx", "scheme": "float32"}
    assert {one["to"]: one["status"] for one in found["plans"]} == {
        "litert": "lacking",
        "onnxruntime": "ready",
        "openvino": "ready",
    }
    step = found["plans"][0]["steps"][0]
    assert (step["name"], step["source"], step["target"]) == (
        "onnx-to-tflite",
        "onnx/float32",
        "tflite/float32",
    )
    need = step["requires"][0]
    assert (need["kind"], need["name"]) == ("worker", "onnx2tf")
    assert need["missing"].startswith("not installed in ")
    assert need["command"] == "edgeml workers install onnx2tf"


@pytest.mark.parametrize(
    ("goal", "complaint"),
    [("tensorrt", "known: litert, onnxruntime, openvino"), ("litert:int3", "known: float32, float16")],
)
def test_an_unknown_goal_is_wrong_usage(model: Path, goal: str, complaint: str) -> None:
    result = run(model, "--to", goal)
    assert result.exit_code == 2
    assert complaint in result.output


def test_a_file_that_is_no_model_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello", encoding="utf-8")
    result = run(tmp_path / "notes.txt")
    assert result.exit_code == 1
    assert "not a model in a known format" in result.output
