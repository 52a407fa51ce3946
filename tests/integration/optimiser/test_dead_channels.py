"""Dead channels taken out of files: what these compute stays, on every runtime, and ``convert`` shows it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from ai_edge_litert import schema_py_generated as schema
from edgeml_converters.channels.step import STEPS, dead_channels
from edgeml_converters.quantize import tflite_model
from onnx import helper, numpy_helper

from edgeml.arrays import Array
from edgeml.converter import StepRequest
from edgeml.errors import ConversionError
from edgeml.words import Format
from tests.integration.coral_models import Built
from tests.integration.optimiser import random_networks
from tests.integration.quantize_models import outputs, step

CHANNELS = 16
DEAD = [1, 2, 3, 6, 8, 9, 12, 15]
RANDOM = np.random.default_rng(11)


def normal(*shape: int) -> Array:
    return RANDOM.normal(size=shape).astype(np.float32)


def trimmed(path: Path, format_: Format, folder: Path) -> tuple[Path, str]:
    folder.mkdir()
    made = STEPS[format_].run(StepRequest(path, folder))
    return made.artifact, made.notes[0]


def same(runtime: str, before: Path, after: Path, shape: tuple[int, ...]) -> bool:
    inputs = [normal(*shape) for _ in range(4)]
    left, right = (outputs(runtime, path, inputs) for path in (before, after))
    assert left.keys() == right.keys()
    return all(np.abs(left[name] - right[name]).max() <= 1e-5 * np.abs(left[name]).max() for name in left)


# --- ONNX, and OpenVINO of it


Nodes = list[Any]
SHAPE = (1, 3, 10, 10)


def first(dead: Array | None = None, bias: Array | None = None) -> dict[str, Array]:
    """Give weights of a convolution with dead channels: half of them above 0, half below."""
    weights = normal(CHANNELS, 3, 3, 3)
    weights[DEAD] = 0 if dead is None else dead
    return {"w1": weights, "b1": normal(CHANNELS) if bias is None else bias}


def onnx_file(folder: Path, nodes: Nodes, constants: dict[str, Array], **shown: list[int]) -> Path:
    ports = {"y": None} | shown
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, list(SHAPE))],
        [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, side) for name, side in ports.items()],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(onnx.shape_inference.infer_shapes(model), folder / "model.onnx")
    return folder / "model.onnx"


def node(kind: str, takes: str, makes: str, **options: Any) -> Any:
    return helper.make_node(kind, takes.split(), [makes], name=makes, **options)


def pooled_end(takes: str) -> Nodes:
    return [
        node("GlobalAveragePool", takes, "g"),
        node("Reshape", "g flat", "f"),
        node("Gemm", "f wd bd", "y", transB=1),
    ]


def dense(channels: int = CHANNELS) -> dict[str, Array]:
    return {"flat": np.array([1, channels]), "wd": normal(5, channels), "bd": normal(5)}


def plain(folder: Path) -> Path:
    """A chain with no padding: constants above 0 pass the depthwise convolution."""
    nodes = [
        node("Conv", "x w1 b1", "a"),
        node("Clip", "a low high", "ra"),
        node("Conv", "ra w2 b2", "b", group=CHANNELS),
        node("LeakyRelu", "b", "rb", alpha=0.2),
        node("MaxPool", "rb", "p", kernel_shape=[2, 2], strides=[2, 2]),
        *pooled_end("p"),
    ]
    more = {
        "w2": normal(CHANNELS, 1, 3, 3),
        "b2": normal(CHANNELS),
        "low": np.float32(0),
        "high": np.float32(6),
    }
    return onnx_file(folder, nodes, first() | more | dense())


def padded(folder: Path) -> Path:
    """Half of the constants are above 0, and a depthwise convolution sees zeros beside them."""
    bias = normal(CHANNELS)
    bias[DEAD] = [-1, -2, -1, -3, 1, 2, 1, 3]
    nodes = [
        node("Conv", "x w1 b1", "a"),
        node("Relu", "a", "ra"),
        node("Conv", "ra w2 b2", "b", group=CHANNELS, pads=[1, 1, 1, 1]),
        node("HardSwish", "b", "rb"),
        *pooled_end("rb"),
    ]
    more = {"w2": normal(CHANNELS, 1, 3, 3), "b2": normal(CHANNELS)}
    return onnx_file(folder, nodes, first(bias=bias) | more | dense())


def residual(folder: Path) -> Path:
    """A sum with a live side keeps all; the channels behind it, dead on both sides, go."""
    nodes = [
        node("Conv", "x w1 b1", "a"),
        node("Conv", "a w2", "b"),
        node("Conv", "a w3 b3", "c"),
        node("Add", "b c", "s"),
        node("Relu", "s", "rs"),
        *pooled_end("rs"),
    ]
    left, right = normal(CHANNELS, CHANNELS, 1, 1), normal(CHANNELS, CHANNELS, 1, 1)
    left[DEAD], right[DEAD[4:]] = 0, 0
    live = {"w1": normal(CHANNELS, 3, 3, 3), "b1": normal(CHANNELS)}
    return onnx_file(folder, nodes, live | {"w2": left, "w3": right, "b3": normal(CHANNELS)} | dense())


def normalized(folder: Path) -> Path:
    """Batch norms, a scale by channel and a Pad stand by themselves; a convolution has no bias yet."""
    nodes = [
        node("Conv", "x w1", "a"),
        node("BatchNormalization", "a scale shift mean variance", "n"),
        node("Relu", "n", "rn"),
        node("Mul", "rn factor", "m"),
        node("Conv", "m w2", "b"),
        node("Relu", "b", "rb"),
        node("Pad", "rb pads", "o"),
        node("ReduceMean", "o", "g", axes=[2, 3], keepdims=0),
        node("MatMul", "g wd", "y"),
    ]
    more = {name: normal(CHANNELS) for name in ("scale", "shift", "mean")}
    more["scale"][DEAD], more["mean"][DEAD] = 1, 0
    more["shift"][DEAD] = [-1, -2, -1, -3, 1, 2, 1, 3]
    more |= {"variance": np.abs(normal(CHANNELS)), "factor": normal(CHANNELS, 1, 1)}
    more |= {"w2": normal(CHANNELS, CHANNELS, 3, 3), "wd": normal(CHANNELS, 5)}
    more |= {"pads": np.array([0, 0, 1, 1, 0, 0, 1, 1])}
    return onnx_file(folder, nodes, {"w1": first()["w1"]} | more)


@pytest.mark.parametrize(
    ("write", "said"),
    [(plain, "8 of 16 channels"), (padded, "4 of 16 channels"), (residual, "8 of 32 channels")],
)
@pytest.mark.parametrize("format_", ["onnx", "openvino"])
def test_what_is_computed_stays(
    tmp_path: Path, write: Callable[[Path], Path], said: str, format_: Format
) -> None:
    path, runtime = write(tmp_path), "onnxruntime"
    if format_ == "openvino":
        path, runtime = ir(path, tmp_path), "openvino"
    made, note = trimmed(path, format_, tmp_path / "made")
    assert note.startswith(f"dead channels taken out: {said}")
    assert same(runtime, path, made, SHAPE)
    assert dead_channels(made, format_) is None


def ir(path: Path, folder: Path) -> Path:
    (folder / "ir").mkdir()
    return step("onnx-to-openvino").run(StepRequest(path, folder / "ir")).artifact


def test_a_convolution_gains_the_bias_that_it_needs(tmp_path: Path) -> None:
    path = normalized(tmp_path)
    made, note = trimmed(path, "onnx", tmp_path / "made")
    assert "8 of 16" in note
    assert [len(one.input) for one in onnx.load(made).graph.node if one.op_type == "Conv"] == [2, 3]
    assert same("onnxruntime", path, made, SHAPE)


def test_in_openvino_without_one_only_zeros_go(tmp_path: Path) -> None:
    path = ir(normalized(tmp_path), tmp_path)
    made, note = trimmed(path, "openvino", tmp_path / "made")
    assert "4 of 16" in note
    assert same("openvino", path, made, SHAPE)


@pytest.mark.parametrize("format_", ["onnx", "openvino"])
def test_whatever_network_computes_what_it_did(tmp_path: Path, format_: Format) -> None:
    taken = 0
    for seed in range(60):
        folder = tmp_path / str(seed)
        folder.mkdir()
        path = folder / "model.onnx"
        onnx.save(random_networks.Drawn(seed).model(), path)
        if format_ == "openvino":
            path = ir(path, folder)
        if dead_channels(path, format_) is None:
            continue
        taken += 1
        made, note = trimmed(path, format_, folder / "made")
        runtime = "onnxruntime" if format_ == "onnx" else "openvino"
        assert same(runtime, path, made, random_networks.SHAPE), (seed, note)
    assert taken >= 15


def grouped(folder: Path) -> Path:
    """Convolutions in groups, a concatenation and an output of the model keep what they touch."""
    nodes = [
        node("Conv", "x w1 b1", "a"),
        node("Relu", "a", "ra"),
        node("Conv", "ra w2", "b", group=4),
        node("Concat", "b ra", "y", axis=1),
    ]
    return onnx_file(folder, nodes, first() | {"w2": normal(CHANNELS, 4, 1, 1)})


def shown(folder: Path) -> Path:
    nodes = [node("Conv", "x w1 b1", "a"), node("Relu", "a", "ra"), *pooled_end("ra")]
    return onnx_file(folder, nodes, first() | dense(), ra=[1, CHANNELS, 8, 8])


@pytest.mark.parametrize("write", [grouped, shown])
def test_what_mixes_channels_otherwise_or_shows_them_is_left_alone(
    tmp_path: Path, write: Callable[[Path], Path]
) -> None:
    path = write(tmp_path)
    assert dead_channels(path, "onnx") is None
    with pytest.raises(ConversionError, match="has no dead channels"):
        STEPS["onnx"].run(StepRequest(path, tmp_path))


def test_constants_that_two_operators_read_are_sliced_for_one(tmp_path: Path) -> None:
    nodes = [
        node("Conv", "x w1 b1", "a"),
        node("Relu", "a", "ra"),
        node("Conv", "ra w2 b1", "b"),
        node("Conv", "ra w2 b1", "c"),
        node("Concat", "b c", "y", axis=1),
    ]
    path = onnx_file(tmp_path, nodes, first() | {"w2": normal(CHANNELS, CHANNELS, 1, 1)})
    made, note = trimmed(path, "onnx", tmp_path / "made")
    assert "8 of 16" in note
    assert same("onnxruntime", path, made, SHAPE)


# --- LiteRT


def tflite_file(folder: Path, *, same_padding: bool = False, activation: int = 3) -> Path:
    """Write a convolution, a depthwise one, a sum with a second path, a mean and a dense layer."""
    made = Built()
    f32 = "float32"
    x, o = made.tensor("x", (1, 8, 8, 3), f32), made.tensor("o", (1, 10, 10, 3), f32)
    made.op("PAD", [x, made.constant("pads", np.array([[0, 0], [1, 1], [1, 1], [0, 0]], np.int32))], [o])
    sides = {"a": 10, "b": 10 if same_padding else 8}
    a, b, c, s, m, p = (
        made.tensor(name, (1, side, side, CHANNELS), f32)
        for name, side in {**sides, **dict.fromkeys("csm", sides["b"]), "p": 1}.items()
    )
    f, y = made.tensor("f", (1, CHANNELS), f32), made.tensor("y", (1, 5), f32)
    weights = normal(CHANNELS, 1, 1, 3)
    weights[DEAD] = 1e-30
    zero = made.constant("zero", np.zeros(CHANNELS, np.float32))
    made.convolution(o, a, made.constant("w1", weights), made.constant("b1", normal(CHANNELS)),
                     padding=1, fusedActivationFunction=activation)  # fmt: skip
    options: Any = schema.DepthwiseConv2DOptionsT()
    options.padding, options.depthMultiplier, options.strideW, options.strideH = 1 - same_padding, 1, 1, 1
    options.fusedActivationFunction = activation
    dw = made.constant("dw", normal(1, 3, 3, CHANNELS))
    made.op("DEPTHWISE_CONV_2D", [a, dw, zero], [b], 1, options)
    made.op("LOGISTIC", [b], [c])
    add: Any = schema.AddOptionsT()
    add.fusedActivationFunction = 1
    made.op("ADD", [b, c], [s], 1, add)
    made.op("MUL", [s, made.constant("half", np.array(0.5, np.float32))], [m], 1, schema.MulOptionsT())
    mean: Any = schema.ReducerOptionsT()
    mean.keepDims = True
    made.op("MEAN", [m, made.constant("axes", np.array([1, 2], np.int32))], [p], 1, mean)
    shape: Any = schema.ReshapeOptionsT()
    shape.newShape = [1, CHANNELS]
    made.op("RESHAPE", [p, made.constant("flat", np.array([1, CHANNELS], np.int32))], [f], 1, shape)
    made.op("FULLY_CONNECTED", [f, made.constant("wd", normal(5, CHANNELS))], [y], 1,
            schema.FullyConnectedOptionsT())  # fmt: skip
    twin = made.constant("twin", np.zeros(CHANNELS, np.float32))  # equal constants share a buffer
    made.graph.tensors[twin].buffer = made.graph.tensors[zero].buffer
    return made.write(folder / "model.tflite", [x], [y])


@pytest.mark.parametrize("activation", [0, 1, 3])
def test_a_tflite_file_computes_what_it_did(tmp_path: Path, activation: int) -> None:
    path = tflite_file(tmp_path, activation=activation)
    made, note = trimmed(path, "tflite", tmp_path / "made")
    assert note == "dead channels taken out: 8 of 16 channels of 1 operator: a 8 of 16"
    assert same("litert", path, made, (1, 8, 8, 3))
    assert dead_channels(made, "tflite") is None
    model = tflite_model.parse(made.read_bytes())
    sides = {tensor.name.decode(): list(tensor.shape) for tensor in model.subgraphs[0].tensors}
    assert (sides["s"], sides["f"], sides["dw"]) == ([1, 8, 8, 8], [1, 8], [1, 3, 3, 8])
    assert sides["twin"] == [CHANNELS]


def test_padding_in_a_tflite_file_keeps_what_is_not_zero(tmp_path: Path) -> None:
    path = tflite_file(tmp_path, same_padding=True, activation=0)
    assert dead_channels(path, "tflite") is None
