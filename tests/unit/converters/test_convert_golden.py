"""The tolerance that golden samples travel with."""

import numpy as np
import pytest
from edgeml_converters.evaluate.golden import tolerance


def outputs(count=4, scale=1.0, noise=0.0):
    rng = np.random.default_rng(0)
    made = rng.normal(size=(count, 1, 10)) * scale
    return [{"y": (one + rng.normal(size=one.shape) * noise).astype(np.float32)} for one in made]


def test_float_may_be_off_by_a_thousandth_of_its_largest_value():
    made = outputs(scale=10.0)
    largest = max(float(np.abs(one["y"]).max()) for one in made)
    found = tolerance("float32", made, made, None)
    assert found.max_abs == float(f"{largest * 1e-3:.4g}")
    assert found.cosine_min == 0.999
    assert found.top1_agreement_min == 1.0


@pytest.mark.parametrize("scheme", ["float32", "int8_static"])
@pytest.mark.parametrize("odd", [np.nan, np.inf])
def test_what_is_no_number_allows_nothing_and_forbids_nothing(scheme, odd):
    made = outputs()
    known = tolerance(scheme, made[1:], made[1:], 0.01)
    made[0] = {"y": np.full((1, 10), odd, np.float32)}
    assert tolerance(scheme, made, made, 0.01).max_abs == known.max_abs


def test_int8_may_be_off_by_four_times_its_own_error_or_three_steps():
    source = outputs()
    made = [{"y": one["y"] + np.float32(0.25)} for one in source]
    assert tolerance("int8_static", source, made, 0.01).max_abs == 1.0
    assert tolerance("int8_static", source, source, 0.01).max_abs >= 0.03


def test_int8_may_stand_at_four_times_the_angle_to_float():
    source = [{"y": np.array([[1.0, 0.0]], np.float32)}]
    made = [{"y": np.array([[np.cos(0.1), np.sin(0.1)]], np.float32)}]
    assert tolerance("int8_static", source, made, 0.001).cosine_min == pytest.approx(np.cos(0.4), abs=1e-3)


def test_top1_is_not_asked_for_where_the_lead_is_within_the_tolerance():
    close = [{"y": np.array([[1.0, 0.999]], np.float32)}]
    assert tolerance("int8_static", close, close, 0.01).top1_agreement_min == 0.0


def test_without_source_outputs_the_output_step_decides():
    assert tolerance("int8_static", (), outputs(), 0.1).max_abs >= 0.3
