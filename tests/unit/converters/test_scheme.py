"""Which scheme a file's numbers are in is read from the file, or said to be unknown."""

import sys
from pathlib import Path

import numpy as np
import onnx
import openvino as ov
import pytest
from edgeml_converters.formats.scheme import state_of
from onnx import TensorProto, helper
from openvino import opset13 as opset

from edgeml.errors import EngineMissingError
from edgeml.testing.models import make_double


@pytest.mark.parametrize(
    ("runtime", "module", "state"),
    [("onnxruntime", "onnx", "onnx/float32"), ("litert", "ai_edge_litert", "tflite/float32")],
)
def test_without_what_reads_a_format_no_model_passes_for_float(runtime, module, state, tmp_path, monkeypatch):
    path = make_double(tmp_path, runtime)
    assert str(state_of(path)) == state
    for name in [name for name in sys.modules if name.partition(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(EngineMissingError, match="cannot tell whether it is quantized without"):
        state_of(path)


def test_integer_weights_that_are_cast_count_as_quantized(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["w8"], ["steps"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["steps", "scale"], ["w"]),
            helper.make_node("MatMul", ["x", "w"], ["y"]),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2])],
        [
            helper.make_tensor("w8", TensorProto.INT8, [2, 2], [1, 2, 3, 4]),
            helper.make_tensor("scale", TensorProto.FLOAT, [1], [0.5]),
        ],
    )
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph), path)
    assert state_of(path).scheme == "int8_weights"


def test_an_ir_with_an_integer_input_and_float_weights_counts_as_float(tmp_path: Path) -> None:
    x = opset.parameter([1, 4], ov.Type.u8)
    weights = opset.constant(np.ones((4, 2), np.float32))
    model = ov.Model(
        [opset.matmul(opset.convert(x, "f32"), weights, transpose_a=False, transpose_b=False)], [x]
    )
    ov.save_model(model, tmp_path / "m.xml", compress_to_fp16=False)
    assert state_of(tmp_path / "m.xml").scheme == "float32"


def test_an_ir_with_integer_weights_counts_as_quantized(tmp_path: Path) -> None:
    x = opset.parameter([1, 4], ov.Type.f32)
    weights = opset.convert(opset.constant(np.ones((4, 2), np.int8)), "f32")
    model = ov.Model([opset.matmul(x, weights, transpose_a=False, transpose_b=False)], [x])
    ov.save_model(model, tmp_path / "m.xml", compress_to_fp16=False)
    assert state_of(tmp_path / "m.xml").scheme == "int8_weights"
