"""Which weights magnitude pruning takes."""

from __future__ import annotations

import numpy as np
from edgeml_converters.quantize.sparsity import least


def test_the_share_holds_for_all_layers_together() -> None:
    random = np.random.default_rng(0)
    layers = [random.normal(size=shape).astype(np.float32) for shape in ((8, 3, 3, 4), (10, 64))]
    marks = least(layers, 0.3)
    assert [one.shape for one in marks] == [one.shape for one in layers]
    assert sum(int(one.sum()) for one in marks) == int(0.3 * (8 * 3 * 3 * 4 + 640))


def test_what_is_taken_is_smaller_than_what_stays_in_each_layer() -> None:
    random = np.random.default_rng(1)
    layers = [(random.normal(size=(16, 16)) * scale).astype(np.float32) for scale in (1.0, 100.0)]
    for weights, marked in zip(layers, least(layers, 0.5), strict=True):
        assert np.abs(weights[marked]).max() <= np.abs(weights[~marked]).min()


def test_a_layer_of_small_weights_is_not_taken_before_the_others() -> None:
    random = np.random.default_rng(2)
    weights = random.normal(size=(16, 16)).astype(np.float32)
    small, large = least([weights * 1e-3, weights], 0.5)
    assert np.array_equal(small, large)


def test_no_layer_is_emptied() -> None:
    random = np.random.default_rng(3)
    layers = [random.normal(size=size).astype(np.float32) for size in ((4, 4), (64, 64))]
    assert all(not one.all() for one in least(layers, 0.99))


def test_equal_weights_and_layers_of_zeros_go_first_and_in_order() -> None:
    marks = least([np.zeros((2, 4), np.float32), np.ones((2, 4), np.float32)], 0.75)
    assert marks[0].all()
    assert marks[1].ravel().tolist() == [True] * 4 + [False] * 4
