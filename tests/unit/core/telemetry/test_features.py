"""Features of inputs: the same bits from arrays and from plain sequences, spread over the whole input."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeml.telemetry.features import (
    MOST_VALUES,
    PICKED,
    input_features,
    rows_of_array,
    stride,
)
from edgeml.telemetry.report import MOST_FEATURES
from edgeml.tensors import Quantization, Shape, TensorSpec

IMAGE = TensorSpec("image", (None, 224, 224, 3), "float32")
PLANES = TensorSpec("image", (1, 3, 64, 64), "float32")
SOUND = TensorSpec("sound", (1, 16000), "float32")
TABLE = TensorSpec("x", (None, 5), "float32")


def test_few_values_are_their_own_features() -> None:
    (table,) = input_features([TABLE])
    assert table.names == ("x[0]", "x[1]", "x[2]", "x[3]", "x[4]")
    assert rows_of_array(table, np.arange(10, dtype=np.float32).reshape(2, 5)) == [
        (0.0, 1.0, 2.0, 3.0, 4.0),
        (5.0, 6.0, 7.0, 8.0, 9.0),
    ]


def test_one_value_has_the_name_of_its_input() -> None:
    assert input_features([TensorSpec("x", (1, 1), "float32")])[0].names == ("x",)


def test_an_image_has_a_summary_and_the_means_of_its_colours() -> None:
    (image,) = input_features([IMAGE])
    assert image.names == tuple(
        f"image.{part}" for part in "mean std min max detail channel0 channel1 channel2".split()
    )
    flat = np.broadcast_to(np.float32([1, 2, 6]), (1, 224, 224, 3))
    mean, _, low, high, detail, *colours = rows_of_array(image, flat)[0]
    assert mean == pytest.approx(3, rel=0.01)
    assert (low, high, detail, colours) == (1, 6, 0, [1, 2, 6])


def test_colours_may_stand_in_planes() -> None:
    (planes,) = input_features([PLANES])
    value = np.broadcast_to(np.float32([1, 2, 6]).reshape(1, 3, 1, 1), (1, 3, 64, 64))
    assert rows_of_array(planes, value)[0][5:] == (1, 2, 6)


@given(st.integers(1, 200_000))
def test_picked_values_share_no_rhythm_with_the_input(size: int) -> None:
    step = stride(size)
    assert math.gcd(step, size) == 1
    assert len(range(0, size, step)) <= PICKED


def test_stored_integers_are_made_real_numbers() -> None:
    spec = TensorSpec("x", (1, 16000), "int8", Quantization((0.5,), (3,)))
    (features,) = input_features([spec])
    stored = np.full((1, 16000), 7, np.int8)
    assert rows_of_array(features, stored)[0] == rows_of_array(features, np.full((1, 16000), 2.0))[0]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_no_number_gives_no_number_and_no_error(bad: float) -> None:
    (sound,) = input_features([SOUND])
    value = np.full((1, 16000), bad, np.float32)
    value[0, ::2] = -bad
    assert all(map(math.isnan, rows_of_array(sound, value)[0]))


def test_many_inputs_have_no_more_features_than_a_report_holds() -> None:
    shapes: list[Shape] = [(1, MOST_VALUES - 4), (1, 100), (1, 4)]
    specs = [TensorSpec(f"x{place}", shape, "float32") for place, shape in enumerate(shapes)]
    found = input_features(specs)
    assert [one.input for one in found] == ["x0", "x2"]
    assert sum(len(one.names) for one in found) == MOST_FEATURES


def test_an_input_that_is_empty_or_of_any_size_is_no_trouble() -> None:
    (free,) = input_features([TensorSpec("x", (1, None), "float32"), TensorSpec("y", (1, 0), "float32")])
    assert all(map(math.isnan, rows_of_array(free, np.zeros((1, 0), np.float32))[0]))
    assert rows_of_array(free, np.ones((1, 3), np.float32))[0] == (1, 0, 1, 1, 0)
