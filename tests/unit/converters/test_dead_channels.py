"""Which channels go, which stay, and what becomes of their constants: on graphs of a few operators."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from edgeml_converters.channels import activations
from edgeml_converters.channels.flow import (
    Channelwise,
    Graph,
    Layer,
    Parameter,
    combined,
    depthwise,
    elementwise,
    unchanged,
)
from edgeml_converters.channels.removal import remove
from edgeml_converters.graph import Plan
from edgeml_converters.steps.step import FormatStep
from edgeml_converters.variants.rows import Row
from edgeml_converters.variants.trimmed import all_plans

from edgeml.arrays import Array
from edgeml.converter import QuantizerSettings, State, StepResult

CHANNELS = 8


def full(outputs: int, inputs: int) -> Array:
    return np.random.default_rng(0).normal(size=(outputs, inputs, 1, 1)).astype(np.float32) + np.float32(3)


def layer(takes: str, makes: str, outputs: int = CHANNELS, inputs: int = CHANNELS, **more: object) -> Layer:
    bias = np.arange(1, outputs + 1, dtype=np.float32)
    options = {"activation": activations.relu} | more
    return Layer(makes, takes, makes, full(outputs, inputs), 0, 1, bias, **options)  # type: ignore[arg-type]


def three(*between: Channelwise, last: str, **more: object) -> tuple[Layer, Layer, Graph]:
    """Give two layers with something between them, the first with three dead channels, and their graph."""
    first, second = layer("x", "a", CHANNELS, 3), layer(last, "y", 2, **more)
    first.weights[[1, 2, 5]] = 0
    return first, second, Graph([first, *between, second], {"x", "y"})


def test_a_dead_channel_goes_into_the_bias_of_what_reads_it() -> None:
    first, second, graph = three(last="a")
    first.bias[1] = -4  # what ReLU makes 0
    before, bias = second.weights.copy(), second.bias.copy()
    found = remove(graph, multiple=1)
    assert [(one.layer, one.channels, one.of) for one in found.layers] == [("a", 3, 8)]
    assert found.channels == {"a": 5}
    assert first.weights.shape == (5, 3, 1, 1)
    assert first.bias.tolist() == [1, 4, 5, 7, 8]
    assert np.array_equal(second.weights, np.delete(before, [1, 2, 5], axis=1))
    assert np.allclose(second.bias, bias + before[:, 2, 0, 0] * 3 + before[:, 5, 0, 0] * 6)
    assert found.share == 0.375  # of the weights of both


def test_the_number_left_is_a_multiple_of_four() -> None:
    first, _, graph = three(last="a")
    assert not remove(graph).layers
    first.weights[[6]] = 0
    assert remove(graph).layers[0].channels == 4


def test_a_layer_keeps_one_group_of_channels_though_all_are_dead() -> None:
    first, second, graph = three(last="a")
    first.weights[:] = 0
    remove(graph)
    assert first.made == second.taken == 4


def test_zeros_around_a_picture_leave_only_a_constant_of_zero() -> None:
    first, second, graph = three(last="a", padded=True)
    first.bias[[1, 2]] = -4, 0
    bias = second.bias.copy()
    assert [one.channels for one in remove(graph, 1).layers] == [2]
    assert np.array_equal(second.bias, bias)


def test_a_constant_passes_a_depthwise_convolution_without_padding() -> None:
    weights = np.arange(CHANNELS * 9, dtype=np.float32).reshape(CHANNELS, 1, 3, 3)
    alone = Parameter(weights, 0), Parameter(np.ones(CHANNELS, np.float32), 0)
    value = depthwise(padded=False, axis=0, activation=activations.relu6)
    between = Channelwise("b", ("a",), "b", value, alone)
    _, second, graph = three(between, last="b")
    columns, bias = second.weights[:, [1, 2, 5], 0, 0], second.bias.copy()
    found = remove(graph, 1)
    assert found.channels == {"a": 5, "b": 5}
    assert alone[0].values.shape == (5, 1, 3, 3)
    assert alone[1].values.shape == (5,)
    assert np.allclose(second.bias, bias + columns.sum(axis=1) * 6)  # all are above 6 before ReLU6


def test_with_padding_a_depthwise_convolution_makes_a_constant_of_zeros_alone() -> None:
    weights = Parameter(np.ones((CHANNELS, 1, 3, 3), np.float32), 0)
    between = Channelwise(
        "b", ("a",), "b", depthwise(padded=True, axis=0, activation=activations.same), (weights,)
    )
    first, _, graph = three(between, last="b")
    first.bias[1] = -1
    assert [one.channels for one in remove(graph, 1).layers] == [1]


def test_a_channel_that_nothing_reads_goes_whatever_it_is() -> None:
    weights = Parameter(np.ones((CHANNELS, 1, 3, 3), np.float32), 0)
    between = Channelwise(
        "b", ("a",), "b", depthwise(padded=True, axis=0, activation=activations.same), (weights,)
    )
    first, second, graph = three(between, last="b")
    first.weights[:] = full(CHANNELS, 3)
    second.weights[:, [0, 7]] *= np.float32(1e-30)  # what weight decay leaves
    assert [one.channels for one in remove(graph, 1).layers] == [2]
    assert first.bias.tolist() == [2, 3, 4, 5, 6, 7]


def test_what_only_dead_channels_read_goes_as_well() -> None:
    first, second, third = layer("x", "a", CHANNELS, 3), layer("a", "b"), layer("b", "y", 2)
    graph = Graph([first, second, third], {"x", "y"})
    third.weights[:, 4:] = 0
    second.weights[:4, 4:] = 0  # these inputs serve what nothing reads
    assert [(one.layer, one.channels) for one in remove(graph).layers] == [("a", 4), ("b", 4)]


def test_a_sum_loses_a_channel_only_if_both_sides_are_dead() -> None:
    add = combined(np.add, activations.relu)
    left, right, last = layer("x", "l", inputs=3), layer("x", "r", inputs=3), layer("s", "y", 2)
    left.weights[:6], right.weights[2:] = 0, 0
    bias, columns = last.bias.copy(), last.weights[:, 2:6, 0, 0]
    graph = Graph([left, right, Channelwise("s", ("l", "r"), "s", add), last], {"x", "y"})
    found = remove(graph)
    assert [(one.layer, one.channels) for one in found.layers] == [("l", 4), ("r", 4)]
    assert np.allclose(last.bias, bias + columns @ (2 * np.arange(3, 7)))


def test_inputs_outputs_and_what_is_unknown_keep_their_channels() -> None:
    for kept in ("a", "b"):
        between = Channelwise("b", ("a",), "b", elementwise(np.tanh))
        _, _, graph = three(between, last="b")
        graph.locked.add(kept)
        assert not remove(graph, 1).layers


def test_a_second_reader_that_needs_the_channel_keeps_it() -> None:
    first, _, graph = three(last="a")
    graph.nodes.append(layer("a", "z", 2, padded=True))
    graph.locked.add("z")
    first.bias[1] = -1
    assert [one.channels for one in remove(graph, 1).layers] == [1]


def test_without_a_bias_to_put_it_into_only_a_constant_of_zero_goes() -> None:
    first, second, graph = three(last="a")
    first.bias[2], second.bias = -1, None
    assert [one.channels for one in remove(graph, 1).layers] == [1]
    assert second.bias is None
    second.may_gain_bias = True
    assert [one.channels for one in remove(graph, 1).layers] == [2]
    assert second.bias is not None


def test_what_is_no_number_stays(recwarn: pytest.WarningsRecorder) -> None:
    first, second, graph = three(last="a")
    first.weights[0], second.weights[1, 7] = np.nan, np.inf
    remove(graph, 1)
    assert np.isnan(first.weights[0]).all()
    assert np.isinf(second.weights[1, 4]).all()
    assert not recwarn.list


def test_a_graph_that_contradicts_itself_is_left_alone() -> None:
    first, second = layer("x", "a", CHANNELS, 3), layer("b", "y", 2, 6)
    first.weights[[1]] = 0
    graph = Graph([first, Channelwise("b", ("a",), "b", unchanged), second], {"x", "y"})
    assert not remove(graph, 1).layers


def test_the_step_stands_where_a_path_first_has_a_format_with_channels() -> None:
    steps = [
        FormatStep(name, State(*source), State(*target), (), 1.0, lambda _: StepResult(Path()))
        for name, source, target in (
            ("convert", ("keras", "float32"), ("tflite", "float32")),
            ("quantize", ("tflite", "float32"), ("tflite", "int8_static")),
        )
    ]
    row = Row("litert-int8_static", "litert", "int8_static", ("pi",), QuantizerSettings())
    plan = Plan(steps[0].source, steps[1].target, tuple(steps), ())
    plans = all_plans([row], {row.name: plan})
    assert [step.name for step in plans["litert-int8_static-trimmed"].steps] == [
        "convert", "tflite-trimmed", "quantize",
    ]  # fmt: skip
    assert plans[row.name] is plan
    quantized = replace(plan, source=State("tflite", "int8_static"), steps=())
    assert list(all_plans([row], {row.name: quantized})) == [row.name]
