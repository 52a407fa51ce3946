"""Train the demo's classifier on scikit-learn's handwritten digits and write digits.onnx.

    python examples/digits/train.py

A convolutional network of 24,000 weights in plain NumPy: a minute on one core, and the same weights every
time on one machine. Input ``image`` is float32 [1, 8, 8, 1] (NHWC, 0 to 1), output ``scores`` is
float32 [1, 10], the logits of the ten digits.
"""

from pathlib import Path

import digits
import numpy as np
import onnx
from numpy.lib.stride_tricks import sliding_window_view
from onnx import TensorProto, helper, numpy_helper

EPOCHS = 60
BATCH = 64
RATE = 2e-3
HERE = Path(__file__).parent

Weights = dict[str, np.ndarray]


def planes(pictures: np.ndarray) -> np.ndarray:
    """Scale uint8 [N, 8, 8, 1] from 0..16 to float32 [N, 1, 8, 8] from 0 to 1."""
    return (pictures / 16).astype(np.float32).transpose(0, 3, 1, 2)


def start(rng: np.random.Generator) -> Weights:
    """Draw the first weights, scaled to their fan-in (He)."""

    def he(*shape: int) -> np.ndarray:
        return rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape).astype(np.float32)

    shapes = {"conv1": (16, 1, 3, 3), "conv2": (32, 16, 3, 3), "conv3": (64, 32, 3, 3), "dense": (10, 64)}
    weights = {name: he(*shape) for name, shape in shapes.items()}
    return weights | {f"{name}_bias": np.zeros(shape[0], np.float32) for name, shape in shapes.items()}


def patches(x: np.ndarray) -> np.ndarray:
    """Give every padded 3x3 neighbourhood of [N, C, H, W] as a row: [N, H, W, C * 9]."""
    windows = sliding_window_view(np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1))), (3, 3), axis=(2, 3))
    return np.ascontiguousarray(windows.transpose(0, 2, 3, 1, 4, 5)).reshape(*x.shape[:1], *x.shape[2:], -1)


def convolve(columns: np.ndarray, weights: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """Convolve patches and apply ReLU: [N, filters, H, W]."""
    out = columns @ weights.reshape(len(weights), -1).T + bias
    return np.maximum(out, 0).transpose(0, 3, 1, 2)


def spread(columns: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Add gradients of patches [N, H, W, C * 9] back onto the [N, C, H, W] they were taken from."""
    n, c, h, w = shape
    padded = np.zeros((n, c, h + 2, w + 2), np.float32)
    grid = columns.reshape(n, h, w, c, 3, 3)
    for row in range(3):
        for column in range(3):
            padded[:, :, row : row + h, column : column + w] += grid[..., row, column].transpose(0, 3, 1, 2)
    return padded[:, :, 1:-1, 1:-1]


def forward(weights: Weights, x: np.ndarray) -> dict[str, np.ndarray]:
    """Run the network on [N, 1, 8, 8] and keep what the backward pass needs."""
    kept = {"columns1": patches(x)}
    kept["one"] = convolve(kept["columns1"], weights["conv1"], weights["conv1_bias"])
    kept["columns2"] = patches(kept["one"])
    kept["two"] = convolve(kept["columns2"], weights["conv2"], weights["conv2_bias"])
    n, c, h, w = kept["two"].shape
    blocks = kept["two"].reshape(n, c, h // 2, 2, w // 2, 2)
    kept["pooled"] = blocks.max(axis=(3, 5))
    kept["columns3"] = patches(kept["pooled"])
    kept["three"] = convolve(kept["columns3"], weights["conv3"], weights["conv3_bias"])
    kept["mean"] = kept["three"].mean(axis=(2, 3))
    kept["scores"] = kept["mean"] @ weights["dense"].T + weights["dense_bias"]
    return kept


def backward(weights: Weights, kept: dict[str, np.ndarray], labels: np.ndarray) -> Weights:
    """Give the gradient of the mean cross-entropy for every weight."""
    scores = np.exp(kept["scores"] - kept["scores"].max(axis=1, keepdims=True))
    slope = scores / scores.sum(axis=1, keepdims=True)
    slope[np.arange(len(labels)), labels] -= 1
    slope /= len(labels)
    grads = {"dense": slope.T @ kept["mean"], "dense_bias": slope.sum(axis=0)}

    def through(layer: int, out: str, upstream: np.ndarray) -> np.ndarray:
        rows = (upstream * (kept[out] > 0)).transpose(0, 2, 3, 1)
        flat, columns = rows.reshape(-1, rows.shape[-1]), kept[f"columns{layer}"]
        kernel = weights[f"conv{layer}"]
        grads[f"conv{layer}"] = (flat.T @ columns.reshape(len(flat), -1)).reshape(kernel.shape)
        grads[f"conv{layer}_bias"] = flat.sum(axis=0)
        return rows @ kernel.reshape(len(kernel), -1)

    area = kept["three"].shape[2] * kept["three"].shape[3]
    up = np.broadcast_to((slope @ weights["dense"])[:, :, None, None] / area, kept["three"].shape)
    up = spread(through(3, "three", up), kept["pooled"].shape)
    up = up.repeat(2, axis=2).repeat(2, axis=3)
    up = up * (kept["two"] == kept["pooled"].repeat(2, axis=2).repeat(2, axis=3))
    up = spread(through(2, "two", up), kept["one"].shape)
    through(1, "one", up)
    return grads


def shifted(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Move each picture by up to one pixel, as another hand would have."""
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = sliding_window_view(padded, x.shape[2:], axis=(2, 3))
    rows, columns = rng.integers(0, 3, (2, len(x)))
    return windows[np.arange(len(x)), :, rows, columns]


def train(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> Weights:
    """Fit with Adam and a cosine schedule."""
    weights = start(rng)
    first = {name: np.zeros_like(value) for name, value in weights.items()}
    second = {name: np.zeros_like(value) for name, value in weights.items()}
    steps = EPOCHS * (len(x) // BATCH)
    step = 0
    for _ in range(EPOCHS):
        for batch in np.array_split(rng.permutation(len(x)), len(x) // BATCH):
            step += 1
            grads = backward(weights, forward(weights, shifted(x[batch], rng)), y[batch])
            rate = RATE * 0.5 * (1 + np.cos(np.pi * step / steps))
            for name, grad in grads.items():
                first[name] += 0.1 * (grad - first[name])
                second[name] += 0.001 * (grad**2 - second[name])
                unbiased = first[name] / (1 - 0.9**step)
                scale = np.sqrt(second[name] / (1 - 0.999**step)) + 1e-8
                weights[name] -= (rate * unbiased / scale).astype(np.float32)
    return weights


def to_onnx(weights: Weights) -> onnx.ModelProto:
    """Write the network as operators of opset 17."""

    def conv(layer: int, source: str) -> list[onnx.NodeProto]:
        names = [source, f"conv{layer}", f"conv{layer}_bias"]
        attributes = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
        return [
            helper.make_node("Conv", names, [f"conv{layer}_out"], name=f"conv{layer}", **attributes),
            helper.make_node("Relu", [f"conv{layer}_out"], [f"relu{layer}"], name=f"relu{layer}"),
        ]

    nodes = [
        helper.make_node("Transpose", ["image"], ["planes"], name="planes", perm=[0, 3, 1, 2]),
        *conv(1, "planes"),
        *conv(2, "relu1"),
        helper.make_node("MaxPool", ["relu2"], ["pooled"], name="pool", kernel_shape=[2, 2], strides=[2, 2]),
        *conv(3, "pooled"),
        helper.make_node("GlobalAveragePool", ["relu3"], ["mean"], name="mean"),
        helper.make_node("Flatten", ["mean"], ["features"], name="features"),
        helper.make_node("Gemm", ["features", "dense", "dense_bias"], ["scores"], name="dense", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 8, 8, 1])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 10])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    model.producer_name = "examples/digits/train.py"
    onnx.checker.check_model(model, full_check=True)
    return model


def main() -> None:
    pictures, labels = digits.shuffled()
    images, split = planes(pictures), digits.HELD_OUT
    weights = train(images[split:], labels[split:], np.random.default_rng(7))
    guesses = forward(weights, images[:split])["scores"].argmax(axis=1)
    onnx.save(to_onnx(weights), HERE / "digits.onnx")
    print(f"top-1 on {split} held-out digits: {(guesses == labels[:split]).mean():.1%}")


if __name__ == "__main__":
    main()
