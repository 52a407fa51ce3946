"""Channels that equalization leaves alone."""

from __future__ import annotations

import numpy as np
from edgeml_converters.quantize.equalization import Layer, Pair, equalize


def test_a_channel_that_weight_decay_left_nothing_of_keeps_its_bias() -> None:
    first = Layer("first", np.array([[1.0], [1e-30]], np.float32), 0, 1, np.array([0.5, 0.5], np.float32))
    second = Layer("second", np.array([[0.01, 0.3]], np.float32), 0, 1)
    assert equalize([Pair(first, second)])
    assert first.bias is not None
    assert first.bias[1] == np.float32(0.5)
    assert second.weights[0, 1] == np.float32(0.3)
    assert np.isclose(np.abs(first.weights[0]).max(), np.abs(second.weights[0, 0]))
