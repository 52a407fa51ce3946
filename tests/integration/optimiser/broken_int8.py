"""Models that compute what they did before and that plain int8 ruins."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgeml.arrays import Array
from tests.conftest import REPOSITORY

DIGITS = REPOSITORY / "examples" / "digits"
OUTLIER = 2000.0
"""One channel reaches so many times as far as it did; what takes it gives it back. Between is only a ReLU."""
CHANNELS = (0, 5)
PIXELS = 640.0


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


def _digits(part: slice) -> tuple[list[Array], Array]:
    from sklearn import datasets

    held = datasets.load_digits()
    order = np.random.default_rng(0).permutation(len(held.target))[part]  # as examples/digits shuffles them
    return [(held.images[place] / 16).astype(np.float32)[None, ..., None] for place in order], held.target[
        order
    ]
