"""What is told of an engine's message."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeml.engine_text import engine_text


def test_lines_that_name_the_engines_source_are_left_out() -> None:
    error = RuntimeError(
        "Exception from src/inference/core.cpp:12:\nCheck 'x' failed at y\nweights are gone\n"
    )
    assert engine_text(error) == "weights are gone"


def test_a_message_of_nothing_else_is_told_whole() -> None:
    assert engine_text(RuntimeError("Check 'x' failed at\n y\n")) == "y"
    assert engine_text(RuntimeError("Check 'x' failed\n")) == "Check 'x' failed"


def test_an_error_without_a_message_is_told_by_its_type() -> None:
    assert engine_text(ValueError()) == "ValueError"


def test_a_long_message_is_cut_and_says_so() -> None:
    text = engine_text(RuntimeError("word " * 1000), limit=50)
    assert len(text) == 50
    assert text.endswith("…")


def test_of_openvinos_report_the_operators_are_told(tmp_path: Path) -> None:
    import onnx
    import openvino

    x, y = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "xy")
    node = onnx.helper.make_node("Decode", ["x"], ["y"], domain="com.example")
    opsets = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("com.example", 1)]
    graph = onnx.helper.make_graph([node], "g", [x], [y])
    path = tmp_path / "model.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8), str(path))
    with pytest.raises(openvino.frontend.OpConversionFailure) as failure:
        openvino.convert_model(str(path))
    assert "\n" in str(failure.value)
    assert engine_text(failure.value) == "No conversion rule found for operations: com.example.Decode"
