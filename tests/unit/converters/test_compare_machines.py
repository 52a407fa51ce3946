"""The step of outputs that were dequantized before they are given."""

import numpy as np
import pytest
from edgeml_converters.compare.machines import grid_step


def test_the_step_of_dequantized_scores_is_found():
    stored = np.random.default_rng(0).integers(-128, 128, (8, 1, 100)).astype(np.int8)
    assert grid_step((stored.astype(np.float32) + 128) / 256) == pytest.approx(1 / 256)


def test_of_few_values_the_least_step_that_is_possible_is_taken():
    assert grid_step(np.array([0.0, 0.5], np.float32)) == pytest.approx(0.5 / 255)
    assert grid_step(np.array([0.0, 0.1, 0.3, 2.0], np.float32)) == pytest.approx(0.1 / 12)


@pytest.mark.parametrize(
    "values", [np.array([1.0, 1.0]), np.random.default_rng(0).normal(size=50), np.arange(300.0)]
)
def test_what_is_no_grid_of_int8_has_no_step(values):
    assert grid_step(values.astype(np.float32)) is None
