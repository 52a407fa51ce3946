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


def broken_after(chain, first, names):
    """Give a model under other names whose tensors have nothing in common from ``first`` on."""
    rng = np.random.default_rng(2)
    made = []
    for sample in chain:
        other, lost = {}, False
        for name, new in names.items():
            lost = lost or name == first
            values = sample[name].transpose(0, 3, 1, 2) if sample[name].ndim == 4 else sample[name]
            shuffled = rng.permutation(values.reshape(-1)).reshape(values.shape)
            other[new] = shuffled if lost else values
        made.append(other)
    return made


@pytest.fixture
def layers():
    """Four layers, each a tensor before its activation and one behind it."""
    rng = np.random.default_rng(0)
    made = []
    for _ in range(2):
        sample = {}
        for layer in range(4):
            values = rng.normal(size=(1, 6, 6, 4)).astype(np.float32)
            sample |= {f"conv{layer}": values, f"relu{layer}": np.maximum(values, 0)}
        made.append(sample | {"out": rng.normal(size=(1, 12)).astype(np.float32)})
    return made


@pytest.mark.parametrize("broken", [0, 1, 2, 3])
def test_the_layer_that_is_broken_is_named_although_its_values_resemble_nothing(layers, broken):
    fused = {f"relu{layer}": f"t{layer}" for layer in range(4)} | {"out": "final"}
    reference = [{name: v for name, v in sample.items() if not name.startswith("conv")} for sample in layers]
    other = broken_after(layers, f"relu{broken}", fused)
    first = first_divergence(match_tensors(reference, other, FLOAT_THRESHOLDS), FLOAT_THRESHOLDS)
    assert (first.name, first.other, first.paired_by) == (f"relu{broken}", f"t{broken}", "place")


@pytest.mark.parametrize("broken", [0, 1, 2, 3])
def test_the_broken_layer_is_named_across_a_fused_activation(layers, broken):
    fused = {f"relu{layer}": f"t{layer}" for layer in range(4)} | {"out": "final"}
    other = broken_after(layers, f"relu{broken}", fused)
    first = first_divergence(match_tensors(layers, other, FLOAT_THRESHOLDS), FLOAT_THRESHOLDS)
    assert first.other == f"t{broken}"
    assert first.name in {f"conv{broken}", f"relu{broken}"}


def test_tensors_that_only_one_model_computes_do_not_diverge(layers):
    names = {name: f"other {name}" for name in layers[0]}
    other = broken_after(layers, None, names)
    rng = np.random.default_rng(5)
    for sample in other:  # the same layer in other steps
        sample["other conv1"] = rng.normal(size=sample["other conv1"].shape).astype(np.float32)
    matches = match_tensors(layers, other, FLOAT_THRESHOLDS)
    assert first_divergence(matches, FLOAT_THRESHOLDS) is None
    assert "conv1" not in {match.name for match in matches}
