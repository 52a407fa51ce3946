"""A network for the digits that has many more weights than it needs."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgeml.arrays import Array
from tests.integration.optimiser.broken_int8 import DIGITS

NAME = "image"
WIDER = 8
"""Times the channels between the second and the third convolution."""
LITTLE = 1e-3
"""Size of the weights of the channels that do nothing, beside those that do."""


def tflite(folder: Path) -> Path:
    """Write the digits' network with channels that hardly add anything between its convolutions."""
    from edgeml_converters.quantize import tflite_model

    model = tflite_model.parse((DIGITS / "digits.tflite").read_bytes())
    graph = model.subgraphs[0]
    random = np.random.default_rng(7)
    for tensor in graph.tensors:
        name, buffer = tensor.name.decode(), model.buffers[tensor.buffer]
        if name in {"conv2_conv_filter", "conv2_conv_bias", "conv3_conv_filter"}:
            values = np.frombuffer(bytes(buffer.data), np.float32).reshape(tensor.shape)
            made = _wider(values, axis=0 if name.startswith("conv2") else -1, random=random)
            buffer.data, tensor.shape = np.frombuffer(made.tobytes(), np.uint8), list(made.shape)
        elif list(tensor.shape)[-1:] == [32] and len(tensor.shape) == 4:
            tensor.shape = [*list(tensor.shape)[:3], 32 * WIDER]
    (folder / "redundant.tflite").write_bytes(tflite_model.content(model))
    return folder / "redundant.tflite"


def _wider(values: Array, *, axis: int, random: np.random.Generator) -> Array:
    shape = list(values.shape)
    shape[axis] *= WIDER - 1
    little = random.normal(size=shape) * LITTLE * np.abs(values).max()
    return np.concatenate([values, little.astype(np.float32)], axis=axis)


def dense(folder: Path) -> Path:
    """Write what comes last in the digits' network alone: 64 features to 10 scores."""
    from edgeml_converters.quantize import tflite_model

    model = tflite_model.parse((DIGITS / "digits.tflite").read_bytes())
    graph = model.subgraphs[0]
    graph.operators = graph.operators[-1:]
    features = int(graph.operators[0].inputs[0])
    graph.inputs = [features]
    for signature in model.signatureDefs:
        signature.inputs[0].tensorIndex = features
    (folder / "dense.tflite").write_bytes(tflite_model.content(model))
    return folder / "dense.tflite"
