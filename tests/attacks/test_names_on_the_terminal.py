"""Names in a stranger's model: they must not write to the terminal of who converts it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

from edgeml.cli import main

NAME = "y\x1b]0;owned\x07\x1b[2J[/]"
"""Sets the title and clears the screen; and what rich reads as its own."""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    weights = numpy_helper.from_array(np.eye(4, dtype=np.float32), "w")
    node = helper.make_node("MatMul", ["x", "w"], [NAME], name=NAME)
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in ("x", NAME)]
    graph = helper.make_graph([node], "g", ends[:1], ends[1:], [weights])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(made, tmp_path / "model.onnx")
    samples = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)
    np.savez(tmp_path / "data.npz", x=samples, wide=samples * 300, y=samples.argmax(axis=1))
    return tmp_path / "model.onnx"


@pytest.mark.parametrize(
    "words",
    [
        ("convert", "--calibration", "data.npz:wide", "--evaluate", "data.npz:x,y", "--max-drop", "0"),
        ("convert", "--postprocess", "output=nothing", "--evaluate", "data.npz:x,y"),
        ("sensitivity", "--calibration", "data.npz:x"),
    ],
    ids=["findings", "an error", "a ranking"],
)
def test_control_characters_do_not_reach_the_terminal(
    words: tuple[str, ...], model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(model.parent)
    more = () if words[0] == "sensitivity" else ("--no-measure",)
    done = CliRunner().invoke(main, [words[0], str(model), *words[1:], "--runtime", "onnxruntime", *more])
    assert "]0;owned" in done.output
    assert not {"\x1b", "\x07"} & set(done.output)
