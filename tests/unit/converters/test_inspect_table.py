"""`edgeml inspect` says what it leaves out, and cuts nothing in a pipe."""

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from edgeml_converters.cli.inspect import inspect

LONG = "a/name/as/converters/give/it;" * 5


@pytest.fixture
def model(tmp_path):
    nodes = [
        onnx.helper.make_node("MatMul", [f"t{place}", f"w{place}"], [f"t{place + 1}"], name=f"{LONG}{place}")
        for place in range(15)
    ]
    weights = [
        onnx.numpy_helper.from_array(np.ones((64, 64), np.float32), f"w{place}") for place in range(15)
    ]
    ends = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 64]) for name in ("t0", "t15")
    ]
    graph = onnx.helper.make_graph(nodes, "chain", ends[:1], ends[1:], weights)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, tmp_path / "m.onnx")
    return tmp_path / "m.onnx"


def test_the_list_of_layers_says_how_many_it_leaves_out(model):
    shown = CliRunner().invoke(inspect, [str(model)]).stdout
    assert "… 3 more, none of them larger; --layers shows all" in shown
    assert "16.4 kB" in shown
    assert f"{LONG}0" in shown, "a pipe gets whole names"


def test_all_layers_are_shown_when_asked_for(model):
    shown = CliRunner().invoke(inspect, [str(model), "--layers"]).stdout
    assert "more" not in shown
    assert f"{LONG}14" in shown
