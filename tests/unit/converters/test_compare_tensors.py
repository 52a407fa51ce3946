"""Pairing intermediate tensors across names and layouts."""

import numpy as np
import pytest
from edgeml_converters.compare.tensors import FLOAT_THRESHOLDS, first_divergence, match_tensors


@pytest.fixture
def chain():
    """A small chain of tensors, two samples, in NHWC."""
    rng = np.random.default_rng(0)
    made = []
    for _ in range(2):
        before = rng.normal(size=(1, 8, 8, 4)).astype(np.float32)
        made.append({"conv": before, "relu": np.maximum(before, 0), "pool": before.mean((1, 2))})
    return made


def renamed(chain, names, permutation=None, noise=None):
    rng = np.random.default_rng(1)
    made = []
    for sample in chain:
        other = {}
        for name, new in names.items():
            values = sample[name]
            if permutation is not None and values.ndim == len(permutation):
                values = values.transpose(permutation)
            if noise == name:
                values = values + rng.normal(size=values.shape).astype(np.float32) * 0.3
            other[new] = values
        made.append(other)
    return made


def test_tensors_of_one_name_pair():
    one = [{"a": np.arange(6, dtype=np.float32).reshape(1, 6)}]
    (match,) = match_tensors(one, one)
    assert (match.name, match.other, match.permutation, match.max_abs) == ("a", "a", None, 0.0)


def test_other_names_and_another_layout_pair_by_value(chain):
    other = renamed(chain, {"conv": "t1", "relu": "t2", "pool": "t3"}, permutation=(0, 3, 1, 2))
    matches = match_tensors(chain, other)
    assert [(match.name, match.other) for match in matches] == [
        ("conv", "t1"),
        ("relu", "t2"),
        ("pool", "t3"),
    ]
    assert matches[0].permutation == (0, 3, 1, 2)
    assert all(match.max_abs == 0 for match in matches)


def test_a_fused_activation_pairs_with_the_tensor_behind_it(chain):
    matches = match_tensors(chain, renamed(chain, {"relu": "fused", "pool": "t3"}))
    assert [(match.name, match.other) for match in matches] == [("relu", "fused"), ("pool", "t3")]


def test_what_quantizers_append_to_a_name_does_not_hide_it(chain):
    matches = match_tensors(chain, renamed(chain, {"relu": "relu_DequantizeLinear_Output"}))
    assert [(match.name, match.other) for match in matches] == [("relu", "relu_DequantizeLinear_Output")]


def test_the_first_tensor_that_diverges_is_named(chain):
    names = {"conv": "conv", "relu": "relu", "pool": "pool"}
    assert first_divergence(match_tensors(chain, renamed(chain, names)), FLOAT_THRESHOLDS) is None
    noisy = match_tensors(chain, renamed(chain, names, noise="relu"))
    assert first_divergence(noisy, FLOAT_THRESHOLDS).name == "relu"


def test_no_samples_pair_nothing():
    assert match_tensors([], []) == ()
