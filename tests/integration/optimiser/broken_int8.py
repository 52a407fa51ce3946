"""Models that compute what they did before and that plain int8 ruins."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from edgeml_converters.convert import ConvertResult, convert

from edgeml.arrays import Array
from edgeml.words import RuntimeName
from tests.conftest import REPOSITORY

DIGITS = REPOSITORY / "examples" / "digits"
OUTLIER = 2000.0
"""One channel reaches so many times as far as it did; what takes it gives it back. Between is only a ReLU."""
CHANNELS = (0, 5)
PIXELS = 640.0
COARSE = 6.0
"""A weight of a feature that is always 0 is so many times the largest of the others: it sets their step."""


def digits_onnx(folder: Path) -> Path:
    """Write the digits' network with outliers behind its second convolution."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load(DIGITS / "digits.onnx")
    for item in model.graph.initializer:
        values = numpy_helper.to_array(item).copy()
        if item.name in {"conv2", "conv2_bias"}:
            values[list(CHANNELS)] *= OUTLIER
        elif item.name == "conv3":
            values[:, list(CHANNELS)] /= OUTLIER
        else:
            continue
        item.CopyFrom(numpy_helper.from_array(values, item.name))
    onnx.save(model, folder / "outlier.onnx")
    return folder / "outlier.onnx"


def digits_tflite(folder: Path) -> Path:
    """Write the same for LiteRT, whose kernels lie output, height, width, input."""
    from edgeml_converters.quantize import tflite_model

    model = tflite_model.parse((DIGITS / "digits.tflite").read_bytes())
    for tensor in model.subgraphs[0].tensors:
        buffer = model.buffers[tensor.buffer]
        name = tensor.name.decode()
        if name not in {"conv2_conv_filter", "conv2_conv_bias", "conv3_conv_filter"}:
            continue
        values = np.frombuffer(bytes(buffer.data), np.float32).reshape(tensor.shape).copy()
        if name == "conv3_conv_filter":
            values[..., list(CHANNELS)] /= OUTLIER
        else:
            values[list(CHANNELS)] *= OUTLIER
        buffer.data = list(values.tobytes())
    (folder / "outlier.tflite").write_bytes(tflite_model.content(model))
    return folder / "outlier.tflite"


def coarse_onnx(folder: Path) -> Path:
    """Write the digits' network with scores that rounded weights move, each in a direction of its own."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load(DIGITS / "digits.onnx")
    items = {item.name: item for item in model.graph.initializer}
    held = {name: numpy_helper.to_array(item).copy() for name, item in items.items()}
    held["conv3_bias"][0] = -10.0
    held["dense"], held["dense_bias"] = _coarse(held["dense"], held["dense_bias"])
    for name, values in held.items():
        items[name].CopyFrom(numpy_helper.from_array(values, name))
    onnx.save(model, folder / "coarse.onnx")
    return folder / "coarse.onnx"


def coarse_tflite(folder: Path) -> Path:
    """Write the same for LiteRT."""
    from edgeml_converters.quantize import tflite_model

    model = tflite_model.parse((DIGITS / "digits.tflite").read_bytes())
    tensors = {tensor.name.decode(): tensor for tensor in model.subgraphs[0].tensors}
    buffers = {name: model.buffers[tensor.buffer] for name, tensor in tensors.items()}
    silent, weights, bias = (
        np.frombuffer(bytes(buffers[name].data), np.float32).copy()
        for name in ("conv3_conv_bias", "dense_fc_weights", "dense_fc_bias")
    )
    silent[0] = -10.0
    weights, bias = _coarse(weights.reshape(10, -1), bias)
    for name, values in (("conv3_conv_bias", silent), ("dense_fc_weights", weights), ("dense_fc_bias", bias)):
        buffers[name].data = np.frombuffer(values.tobytes(), np.uint8)
    (folder / "coarse.tflite").write_bytes(tflite_model.content(model))
    return folder / "coarse.tflite"


def _coarse(weights: Array, bias: Array) -> tuple[Array, Array]:
    """Give weights that lie 0.45 of a step of 8 bits from one, all of a class on the same side.

    The first feature is silent; its weight sets the step. The bias keeps the scores where they were.
    """
    widest = COARSE * np.abs(weights).max(axis=1, keepdims=True)
    step = widest / 127
    side = np.where(np.arange(len(weights)) % 2, -0.45, 0.45)[:, None] * step
    made = np.rint(weights / step) * step + side
    made[:, :1] = widest
    moved = side[:, 0] * _features()[1:].sum()
    return made.astype(np.float32), (bias - moved).astype(np.float32)


def _features() -> Array:
    """Give the mean of each feature over the calibration digits."""
    import onnx
    import onnxruntime

    model = onnx.load(DIGITS / "digits.onnx")
    model.graph.output.append(onnx.helper.make_tensor_value_info("features", onnx.TensorProto.FLOAT, [1, 64]))
    engine = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    made = [engine.run(["features"], {"image": picture})[0] for picture in calibration_digits()]
    return np.concatenate(made).mean(axis=0)


def detector_onnx(folder: Path) -> Path:
    """Write the digits' network with a detection head: boxes in pixels beside scores, in one output."""
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load(DIGITS / "digits.onnx")
    graph = model.graph
    weights = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
    graph.initializer.append(numpy_helper.from_array(weights, "corners"))
    graph.initializer.append(numpy_helper.from_array(np.float32(PIXELS), "pixels"))
    for item in graph.initializer:
        if item.name in {"dense", "dense_bias"}:  # so that no score is as good as 1
            item.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(item) * np.float32(0.15), item.name))
    graph.node.extend(
        [
            helper.make_node("Sigmoid", ["scores"], ["likely"], name="likely"),
            helper.make_node("Gemm", ["features", "corners"], ["shifts"], name="shifts"),
            helper.make_node("Sigmoid", ["shifts"], ["relative"], name="relative"),
            helper.make_node("Mul", ["relative", "pixels"], ["boxes"], name="boxes"),
            helper.make_node("Concat", ["boxes", "likely"], ["found"], name="found", axis=1),
        ]
    )
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info("found", onnx.TensorProto.FLOAT, [1, 14]))
    onnx.save(model, folder / "detector.onnx")
    return folder / "detector.onnx"


def is_found(outputs: Mapping[str, Array], label: Any) -> float:
    """Say whether the highest score behind the four corners is the label's: a metric for ``convert``."""
    return float(np.argmax(outputs["found"].reshape(-1)[4:]) == int(label))


def calibration_digits() -> list[Array]:
    """Give a hundred digits of the training part, as the network takes them."""
    pictures, _ = _digits(slice(-100, None))
    return pictures


def held_out_digits() -> tuple[list[Array], Array]:
    """Give 300 digits that training has not seen, with their labels."""
    return _digits(slice(0, 300))


def held_out_file(folder: Path) -> str:
    """Write the held-out digits to a file, as ``x`` and ``y``; gives its path."""
    pictures, labels = held_out_digits()
    np.savez(folder / "digits.npz", x=np.concatenate(pictures), y=labels)
    return str(folder / "digits.npz")


def _digits(part: slice) -> tuple[list[Array], Array]:
    from sklearn import datasets

    held = datasets.load_digits()
    order = np.random.default_rng(0).permutation(len(held.target))[part]  # as examples/digits shuffles them
    return [(held.images[place] / 16).astype(np.float32)[None, ..., None] for place in order], held.target[
        order
    ]


def converted(model: Path, *runtimes: RuntimeName, **options: Any) -> ConvertResult:
    """Convert with the digits as data, unmeasured and without the cache, unless other options are given."""
    pictures, labels = held_out_digits()
    usual = {
        "calibration": np.concatenate(calibration_digits()),
        "evaluation": (np.concatenate(pictures), labels),
        "measure": False,
        "use_cache": False,
    }
    return convert(model, runtimes=runtimes, **usual | options)
