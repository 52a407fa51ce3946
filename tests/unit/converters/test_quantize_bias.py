"""Bias correction: the outputs of an operator with rounded weights are right on average."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from edgeml_converters.quantize import bias
from onnx import helper, numpy_helper

RANDOM = np.random.default_rng(3)


def model(node: Any, weights: np.ndarray, shapes: tuple[list[int], list[int]], offset: bool) -> Any:
    """One operator; with ``offset`` it has a bias."""
    if offset:
        node.input.append("b")
    width = shapes[1][1]
    constants = {"w": weights, "b": np.linspace(-1, 1, width)} if offset else {"w": weights}
    ports = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        for name, shape in zip("xy", shapes, strict=True)
    ]
    graph = helper.make_graph(
        [node],
        "one",
        ports[:1],
        ports[1:],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def coarse(float_model: Any) -> Any:
    """The model with its weights in steps of 1/4, behind a DequantizeLinear."""
    made = onnx.ModelProto()
    made.CopyFrom(float_model)
    stored = np.rint(4 * numpy_helper.to_array(made.graph.initializer[0])).astype(np.int8)
    made.graph.initializer[0].CopyFrom(numpy_helper.from_array(stored, "q"))
    made.graph.initializer.append(numpy_helper.from_array(np.array(0.25, np.float32), "scale"))
    made.graph.node.insert(0, helper.make_node("DequantizeLinear", ["q", "scale"], ["w"]))
    return made


def run(given: Any, samples: list[np.ndarray]) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    # a fused DequantizeLinear and Gemm would round the inputs
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        given.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return np.stack([session.run(None, {"x": sample})[0] for sample in samples])


@pytest.mark.parametrize("offset", [True, False])
@pytest.mark.parametrize(
    ("kind", "attributes", "weights", "shapes"),
    [
        ("Conv", {}, (6, 4, 1, 1), ([1, 4, 5, 5], [1, 6, 5, 5])),
        ("Conv", {"group": 2}, (6, 2, 1, 1), ([1, 4, 5, 5], [1, 6, 5, 5])),
        ("Conv", {"group": 4}, (4, 1, 1, 1), ([1, 4, 5, 5], [1, 4, 5, 5])),
        ("Gemm", {}, (7, 3), ([1, 7], [1, 3])),
        ("Gemm", {"transB": 1}, (3, 7), ([1, 7], [1, 3])),
    ],
)
def test_the_mean_of_each_output_channel_is_the_float_models(
    kind: str, attributes: dict[str, int], weights: tuple[int, ...], shapes: Any, offset: bool
) -> None:
    node = helper.make_node(kind, ["x", "w"], ["y"], name="one", **attributes)
    real = model(node, RANDOM.normal(size=weights), shapes, offset)
    samples = [(3 + RANDOM.normal(size=shapes[0])).astype(np.float32) for _ in range(10)]
    ((name, axis),) = bias.inputs(real).items()
    means = bias.ChannelMeans(axis=axis)
    for sample in samples:
        means.add(sample)
    wanted, rounded = run(real, samples), coarse(real)
    corrected = onnx.ModelProto()
    corrected.CopyFrom(real)
    bias.correct(corrected, rounded, {name: means})
    others = tuple(place for place in range(wanted.ndim) if place != 2)
    assert np.abs(run(rounded, samples).mean(others) - wanted.mean(others)).max() > 0.1
    np.testing.assert_allclose(run(coarse(corrected), samples).mean(others), wanted.mean(others), atol=1e-5)


def test_means_do_not_hang_on_the_order() -> None:
    values = [RANDOM.normal(size=(1, 3, 8, 8)).astype(np.float32) * 10**power for power in range(-3, 3)]
    forward, backward = bias.ChannelMeans(axis=1), bias.ChannelMeans(axis=1)
    for value in values:
        forward.add(value)
    for value in reversed(values):
        backward.add(value)
    assert forward.value().tobytes() == backward.value().tobytes()
    np.testing.assert_allclose(forward.value(), np.mean(values, axis=(0, 1, 3, 4)), atol=1e-6)


def test_gemm_with_a_factor_is_left_as_it_is() -> None:
    node = helper.make_node("Gemm", ["x", "w"], ["y"], name="one", alpha=0.5)
    real = model(node, RANDOM.normal(size=(7, 3)), ([1, 7], [1, 3]), True)
    means = bias.ChannelMeans(axis=-1)
    means.add(np.ones((1, 7), np.float32))
    before = real.SerializeToString()
    bias.correct(real, coarse(real), {"x": means})
    assert real.SerializeToString() == before
