"""What activations make of a constant, as the three formats name them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Final

import numpy as np

from edgeml_converters.channels.flow import Activation, Values


def clipped(low: float, high: float, values: Values) -> Values:
    """Clamp."""
    return np.clip(values, low, high)


def leaky(slope: float, values: Values) -> Values:
    """Give values below 0 times a slope."""
    return np.where(values < 0.0, slope * values, values)


def sigmoid(values: Values) -> Values:
    """Give 1 / (1 + exp(−x))."""
    return 1.0 / (1.0 + np.exp(-values))


def hard_swish(values: Values) -> Values:
    """Give x · clamp(x + 3, 0, 6) / 6."""
    return values * np.clip(values + 3.0, 0.0, 6.0) / 6.0


def same(values: Values) -> Values:
    """Give values as they are."""
    return values


relu: Final = partial(clipped, 0.0, np.inf)
relu6: Final = partial(clipped, 0.0, 6.0)
BY_ONNX: Final[Mapping[str, Activation]] = {
    "Relu": relu, "Sigmoid": sigmoid, "Tanh": np.tanh, "HardSwish": hard_swish, "Identity": same,
}  # fmt: skip
BY_TFLITE: Final[Mapping[str, Activation]] = {
    "RELU": relu, "RELU6": relu6, "RELU_N1_TO_1": partial(clipped, -1.0, 1.0), "LOGISTIC": sigmoid,
    "TANH": np.tanh, "HARD_SWISH": hard_swish,
}  # fmt: skip
FUSED: Final[Mapping[int, Activation]] = {0: same, 1: relu, 2: partial(clipped, -1.0, 1.0), 3: relu6}
"""By number of TFLite's ActivationFunctionType."""
BY_OPENVINO: Final[Mapping[str, Activation]] = {
    "Relu": relu, "Sigmoid": sigmoid, "Tanh": np.tanh, "HSwish": hard_swish,
}  # fmt: skip
