"""Failures that engines report in a confusing way, or not at all, in our words."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgeml import plugins
from edgeml.errors import InferenceError, InputDtypeError, ModelFileError
from edgeml.testing.models import SMALL_MODELS, make_double, make_quantized


@pytest.mark.data
def test_a_model_for_the_edge_tpu_says_so(data_dir: Path) -> None:
    model = data_dir / "coral" / "mobilenet_v1_0.25_128_quant_edgetpu.tflite"
    with pytest.raises(InferenceError, match="compiled for the Edge TPU"):
        plugins.runtime("litert").load(model)


def test_a_custom_operator_of_onnx_names_its_domain(tmp_path: Path) -> None:
    import onnx
    from onnx import TensorProto, helper

    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Decode", ["x"], ["y"], domain="com.example")], "g", [x], [y])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.example", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), str(tmp_path / "model.onnx"))
    with pytest.raises(InferenceError, match=r"needs operator domain com\.example \(operator Decode\)"):
        plugins.runtime("onnxruntime").load(tmp_path / "model.onnx")


def test_missing_external_data_is_named(tmp_path: Path) -> None:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1024]) for name in "xy")
    weights = numpy_helper.from_array(np.ones((1, 1024), np.float32), "w")
    graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "g", [x], [y], [weights])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(tmp_path / "model.onnx"), save_as_external_data=True, location="weights.data")
    (tmp_path / "weights.data").unlink()
    with pytest.raises(ModelFileError, match=r"weights\.data is missing"):
        plugins.runtime("onnxruntime").load(tmp_path / "model.onnx")


@pytest.mark.parametrize("other", SMALL_MODELS)
@pytest.mark.parametrize("name", SMALL_MODELS)
def test_a_file_of_another_runtime_is_recognised(name: str, other: str, tmp_path: Path) -> None:
    model = make_double(tmp_path, other)
    if name == other:
        plugins.runtime(name).load(model).close()
        return
    with pytest.raises(ModelFileError, match=r"this is an? .*, runtime .* needs an? "):
        plugins.runtime(name).load(model)


def test_openvino_never_casts_in_silence(tmp_path: Path) -> None:
    model = make_quantized(tmp_path, "openvino")
    model.write_text(model.read_text().replace("quantization", "forgotten"))
    with plugins.runtime("openvino").load(model) as session:
        assert session.inputs[0].quantization is None
        with pytest.raises(InputDtypeError, match="got float32, needs int8"):
            session.run({"x": np.ones((1, 16), np.float32)})


def test_openvino_computes_in_the_precision_asked_for_or_refuses(tmp_path: Path) -> None:
    runtime, model = plugins.runtime("openvino"), make_double(tmp_path, "openvino")
    x = np.full((1, 16), 1.001, np.float32)
    with runtime.load(model) as session:
        assert (session.run({"x": x})["y"] == 2 * x).all()
    for precision in ("bf16", "f16"):
        try:
            runtime.load(model, runtime.options({"precision": precision})).close()
        except InferenceError as error:
            assert f"{precision} was asked for" in str(error)  # noqa: PT017 - depends on the CPU


def test_a_model_that_fails_while_it_runs_is_an_inference_error(tmp_path: Path) -> None:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    index = helper.make_tensor_value_info("index", TensorProto.INT64, [1])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    table = numpy_helper.from_array(np.zeros(4, np.float32), "table")
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "index"], ["y"])], "g", [index], [y], [table]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(tmp_path / "model.onnx"))
    with plugins.runtime("onnxruntime").load(tmp_path / "model.onnx") as session:
        with pytest.raises(InferenceError, match="ONNX Runtime failed while it ran the model"):
            session.run({"index": np.array([99])})
        assert session.run({"index": np.array([1])})["y"] == 0


@pytest.mark.parametrize("name", SMALL_MODELS)
def test_an_engine_prints_nothing_of_its_own(name: str, tmp_path: Path) -> None:
    program = (
        "import sys, numpy; from pathlib import Path; from edgeml import plugins\n"
        "runtime = plugins.runtime(sys.argv[1])\n"
        "session = runtime.load(Path(sys.argv[2]))\n"
        "session.run({'x': numpy.zeros((1, 16), 'float32')})\n"
        "try: runtime.load(Path(sys.argv[2]).with_name('gone'))\n"
        "except Exception: pass\n"
    )
    argv = [sys.executable, "-c", program, name, str(make_double(tmp_path, name))]
    done = subprocess.run(argv, capture_output=True, check=True)
    assert (done.stdout, done.stderr) == (b"", b"")


def test_what_others_print_while_chatter_is_dropped_is_kept() -> None:
    program = (
        "import os; from edgeml_runtimes.chatter import without_chatter\n"
        "with without_chatter(b'INFO'): os.write(2, b'INFO: noise\\nreal trouble\\n')\n"
        "os.write(2, b'INFO: after\\n')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stderr == b"real trouble\nINFO: after\n"
