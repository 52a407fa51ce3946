"""The noise of 8 bits, channel by channel."""

import numpy as np
import pytest
from edgeml_converters.sensitivity.noise import SQNR_MAX_DB, ChannelNoise


def sqnr(values, low, high):
    noise = ChannelNoise(low, high)
    for one in values:
        noise.add(np.asarray(one, np.float32)[None])
    return noise.sqnr_db()


def test_values_all_over_the_range_are_held_as_theory_says():
    """A uniform signal over ±1 in steps of 2/255: 10 log10(3⁻¹ / (step² / 12)) = 48.1 dB."""
    values = np.random.default_rng(0).uniform(-1, 1, (40, 30, 30, 4))
    assert sqnr(values, -1.0, 1.0) == pytest.approx(48.1, abs=0.1)


@pytest.mark.parametrize("axis", [0, 2])
def test_a_small_channel_beside_a_large_one_is_lost_wherever_the_channels_are(axis):
    values = np.random.default_rng(0).uniform(0.1, 1, (8, 6, 6, 6))
    np.moveaxis(values, axis + 1, 0)[0] *= 10_000
    assert sqnr(values, 0.0, 10_000.0) < 1.0


def test_values_beyond_the_range_are_cut():
    assert sqnr([[4.0, 4.0]], 0.0, 1.0) == pytest.approx(10 * np.log10(16 / 9), abs=0.01)


def test_a_range_without_zero_is_widened_to_it():
    values = np.full((1, 5), 10.0)
    assert sqnr(values, 9.0, 10.0) == SQNR_MAX_DB


def test_an_activation_of_zeros_loses_nothing():
    assert sqnr(np.zeros((3, 4)), 0.0, 0.0) == SQNR_MAX_DB


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_channel_that_is_no_number_is_lost(value):
    noise = ChannelNoise(-1.0, 1.0)
    noise.add(np.array([[value, value]], np.float32))
    assert noise.sqnr_db() == 0.0
