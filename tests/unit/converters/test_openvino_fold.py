"""IR of an exporter becomes what OpenVINO's own readers give, and computes the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import openvino
import pytest
from edgeml_converters.steps.openvino_fold import fold
from openvino import opset13 as op

TO_FIRST, TO_LAST, SWAPPED = (0, 3, 1, 2), (0, 2, 3, 1), (0, 3, 2, 1)
IMAGE = (1, 8, 6, 3)
RANDOM = np.random.default_rng(0)


def turned(value: Any, order: tuple[int, ...]) -> Any:
    return op.transpose(value, op.constant(np.array(order, np.int32)))


def numbers(*shape: int) -> Any:
    return RANDOM.normal(size=shape).astype(np.float32)


def convolved(value: Any, channels: int, out: int) -> Any:
    """Convolve channels-last, the weights turned and converted in the graph, as Keras does it."""
    weights = turned(
        op.convert(op.constant(numbers(3, 3, channels, out).astype(np.float16)), "f32"), (3, 2, 0, 1)
    )
    made = op.convolution(turned(value, TO_FIRST), weights, [1, 1], [1, 1], [1, 1], [1, 1])
    return op.add(turned(made, TO_LAST), op.constant(numbers(1, 1, 1, out)))


def normalized(value: Any, channels: int) -> Any:
    """Normalize a batch as Keras does it: channels second, height and width swapped."""
    scale, shift, mean = (op.constant(numbers(channels)) for _ in range(3))
    variance = op.constant(np.abs(numbers(channels)) + 1)
    made = op.batch_norm_inference(turned(value, SWAPPED), scale, shift, mean, variance, 1e-3)
    return turned(made, SWAPPED)


def two_blocks(value: Any) -> Any:
    first = op.relu(normalized(convolved(value, 3, 4), 4))
    return op.relu(op.add(normalized(convolved(first, 4, 4), 4), first))


def joined(value: Any) -> Any:
    branches = [op.clamp(convolved(value, 3, out), 0, 6) for out in (2, 5)]
    return op.reduce_mean(convolved(op.concat(branches, 3), 7, 4), np.array([1, 2]))


def padded(value: Any) -> Any:
    begin, end = (op.constant(np.array(sides)) for sides in ((0, 1, 2, 0), (0, 0, 1, 0)))
    return op.relu(convolved(op.pad(convolved(value, 3, 4), begin, end, "constant"), 4, 2))


def beside_what_is_not_turned(value: Any) -> Any:
    return op.multiply(convolved(value, 3, 3), op.sigmoid(value))


def transpose_as_output(value: Any) -> Any:
    return turned(turned(op.relu(value), TO_FIRST), TO_LAST)


def model_of(network: Callable[[Any], Any]) -> Any:
    entry = op.parameter(IMAGE, np.float32, name="image")
    entry.output(0).set_names({"image"})
    made = network(entry)
    made.output(0).set_names({"answer"})
    return openvino.Model([op.result(made)], [entry], "network")


def run(model: Any, image: Any) -> Any:
    compiled = openvino.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return compiled({"image": image})["answer"].copy()


def operators(model: Any) -> Counter[str]:
    return Counter(node.get_type_name() for node in model.get_ops())


@pytest.mark.parametrize(
    "network", [two_blocks, joined, padded, beside_what_is_not_turned, transpose_as_output]
)
def test_the_folded_model_computes_the_same_under_the_same_names(network: Callable[[Any], Any]) -> None:
    image = numbers(*IMAGE)
    model = model_of(network)
    expected, shape = run(model, image), model.outputs[0].get_shape()
    fold(model)
    assert [port.get_names() for port in (*model.inputs, *model.outputs)] == [{"image"}, {"answer"}]
    assert model.outputs[0].get_shape() == shape
    np.testing.assert_allclose(run(model, image), expected, rtol=1e-4, atol=1e-4)


def test_weights_become_constants_and_batch_norms_go_into_the_convolutions() -> None:
    model = model_of(two_blocks)
    before = operators(model)
    fold(model)
    after = operators(model)
    assert (before["Transpose"], before["Convert"], before["BatchNormInference"]) == (10, 2, 2)
    assert (after["Transpose"], after["Convert"], after["BatchNormInference"], after["Multiply"]) == (
        2,
        0,
        0,
        0,
    )
    convolutions = [node for node in model.get_ops() if node.get_type_name() == "Convolution"]
    assert [node.input_value(1).get_node().get_type_name() for node in convolutions] == ["Constant"] * 2


def test_transposes_pass_branches_and_padding() -> None:
    for network in (joined, padded):
        model = model_of(network)
        fold(model)
        assert operators(model)["Transpose"] <= 2, network.__name__
