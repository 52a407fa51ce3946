"""Cross-layer equalization changes the weights of a float model and nothing that it computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import openvino
import pytest
from edgeml_converters.quantize import onnx_equalize, openvino_equalize, tflite_equalize, tflite_model
from onnx import helper, numpy_helper

from edgeml.arrays import Array
from edgeml.converter import StepRequest
from edgeml.errors import QuantizationError
from tests.integration.optimiser import broken_int8
from tests.integration.quantize_models import Samples, only, outputs, run_step, step

CHANNELS = 8


def network(folder: Path, activation: str = "Relu", *, shown: bool = False) -> Path:
    """Write convolution, depthwise convolution, convolution and matrix product, with unlike channels."""
    random = np.random.default_rng(3)
    unlike = 10.0 ** random.uniform(-2, 2, CHANNELS)
    constants = {
        "w1": random.normal(size=(CHANNELS, 3, 3, 3)) * unlike[:, None, None, None],
        "b1": random.normal(size=CHANNELS) * unlike,
        "w2": random.normal(size=(CHANNELS, 1, 3, 3)),
        "b2": random.normal(size=CHANNELS),
        "w3": random.normal(size=(6, CHANNELS, 1, 1)) / unlike[None, :, None, None],
        "w4": random.normal(size=(6, 5)),
        "b4": random.normal(size=5),
        "low": np.array(0.0),
        "high": np.array(6.0),
    }
    clip = ["low", "high"] if activation == "Clip" else []
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["a"], name="first"),
        helper.make_node(activation, ["a", *clip], ["ra"], name="ra"),
        helper.make_node("Conv", ["ra", "w2", "b2"], ["b"], name="depthwise", group=CHANNELS),
        helper.make_node(activation, ["b", *clip], ["rb"], name="rb"),
        helper.make_node("MaxPool", ["rb"], ["p"], name="p", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["p", "w3"], ["c"], name="last"),
        helper.make_node(activation, ["c", *clip], ["rc"], name="rc"),
        helper.make_node("GlobalAveragePool", ["rc"], ["g"], name="g"),
        helper.make_node("Flatten", ["g"], ["f"], name="f"),
        helper.make_node("Gemm", ["f", "w4", "b4"], ["y"], name="dense"),
    ]
    ports = {"y": [1, 5], **({"rb": [1, CHANNELS, 8, 8]} if shown else {})}
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 3, 12, 12])],
        [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name, shape in ports.items()],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items()],
    )
    path = folder / "network.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def inputs() -> list[Array]:
    random = np.random.default_rng(5)
    return [random.normal(size=(1, 3, 12, 12)).astype(np.float32) for _ in range(4)]


def same(left: Array, right: Array) -> bool:
    return bool(np.abs(left - right).max() <= 1e-4 * np.abs(left).max())


def unevenness(weights: Array, axis: int) -> float:
    """Give by how many times the largest channel exceeds the least."""
    largest = np.abs(weights).max(axis=tuple(place for place in range(weights.ndim) if place != axis))
    return float(largest.max() / largest.min())


def test_onnx_computes_what_it_did_through_a_depthwise_convolution_and_pools(tmp_path: Path) -> None:
    path = network(tmp_path)
    model = onnx.load(path)
    before = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
    assert onnx_equalize.equalized(model) == 3
    onnx.save(model, tmp_path / "made.onnx")
    after = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
    assert unevenness(before["w1"], 0) > 500
    assert unevenness(after["w1"], 0) < 30
    found = (only(outputs("onnxruntime", one, inputs())) for one in (path, tmp_path / "made.onnx"))
    assert same(*found)


def test_openvino_computes_what_it_did(tmp_path: Path) -> None:
    (tmp_path / "ir").mkdir()
    path = step("onnx-to-openvino").run(StepRequest(network(tmp_path), tmp_path / "ir")).artifact
    model = openvino.Core().read_model(str(path))
    assert openvino_equalize.equalized(model) == 3
    openvino.save_model(model, str(tmp_path / "made.xml"), compress_to_fp16=False)
    assert same(*(only(outputs("openvino", one, inputs())) for one in (path, tmp_path / "made.xml")))


def test_litert_computes_what_it_did(tmp_path: Path) -> None:
    path = broken_int8.digits_tflite(tmp_path)
    model = tflite_model.parse(path.read_bytes())
    assert tflite_equalize.equalized(model) == 3
    (tmp_path / "made.tflite").write_bytes(tflite_model.content(model))
    samples = broken_int8.calibration_digits()
    assert same(*(only(outputs("litert", one, samples)) for one in (path, tmp_path / "made.tflite")))


def weights(model: Any) -> dict[str, bytes]:
    return {item.name: item.SerializeToString() for item in model.graph.initializer}


def test_what_clamps_at_a_number_is_left_alone(tmp_path: Path) -> None:
    model = onnx.load(network(tmp_path, "Clip"))
    before = weights(model)
    assert onnx_equalize.equalized(model) == 0
    assert weights(model) == before


def test_what_somebody_else_takes_is_left_alone(tmp_path: Path) -> None:
    model = onnx.load(network(tmp_path, shown=True))
    assert onnx_equalize.equalized(model) == 2


def test_a_quantizer_says_when_there_is_nothing_to_equalize(tmp_path: Path) -> None:
    with pytest.raises(QuantizationError, match="leave equalize out"):
        run_step(
            "onnxruntime-int8-static",
            network(tmp_path, "Clip"),
            tmp_path / "made",
            Samples("x", inputs()),
            equalize=True,
        )
