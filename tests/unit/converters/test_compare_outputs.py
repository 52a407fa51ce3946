"""The arithmetic of comparing two models' outputs."""

import math

import numpy as np
import pytest
from edgeml_converters.compare.outputs import (
    SQNR_OF_EQUAL_DB,
    OutputTally,
    pair_names,
    sqnr_db,
    worst_sqnr_db,
)
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edgeml.errors import ConversionError
from edgeml.tensors import TensorSpec


def compared(reference, other):
    tally = OutputTally("a")
    for left, right in zip(reference, other, strict=True):
        tally.add(np.asarray(left), np.asarray(right))
    return tally.result()


def test_equal_outputs():
    result = compared([[1.0, 2.0]], [[1.0, 2.0]])
    assert (result.max_abs, result.cosine, result.top1_agreement) == (0.0, 1.0, 1.0)
    assert result.sqnr_db == SQNR_OF_EQUAL_DB


def test_known_values():
    result = compared([[3.0, 4.0], [0.0, 5.0]], [[3.0, 3.0], [5.0, 0.0]])
    assert result.max_abs == 5.0
    assert result.reference_max == 5.0
    assert result.sqnr_db == pytest.approx(10 * math.log10(50 / 51))
    assert result.top1_agreement == 0.0
    assert result.cosine_min == 0.0
    assert result.cosine == pytest.approx(21 / math.sqrt(50 * 43))


def test_nan_in_the_other_model_is_infinitely_far():
    result = compared([[1.0, 2.0]], [[1.0, math.nan]])
    assert result.max_abs == math.inf
    assert result.sqnr_db == -SQNR_OF_EQUAL_DB


def test_one_value_has_no_top1():
    assert compared([[1.0]], [[2.0]]).top1_agreement is None


def test_another_number_of_values_is_an_error():
    with pytest.raises(ConversionError, match="output 'a' holds 3 values, that of the source 2"):
        compared([[1.0, 2.0]], [[1.0, 2.0, 3.0]])


@given(
    arrays(np.float32, (4, 5), elements=st.floats(-100, 100, width=32)),
    arrays(np.float32, (4, 5), elements=st.floats(-100, 100, width=32)),
)
def test_streaming_gives_what_the_whole_gives(reference, other):
    result = compared(reference, other)
    left, right = reference.astype(np.float64).ravel(), other.astype(np.float64).ravel()
    error = right - left
    assert result.max_abs == pytest.approx(np.abs(error).max())
    assert result.sqnr_db == pytest.approx(sqnr_db(left @ left, error @ error), abs=1e-6)
    assert -1.0 <= result.cosine_min <= 1.0


def test_the_worst_output_counts():
    good, bad = compared([[1.0, 2.0]], [[1.0, 2.0]]), compared([[1.0, 2.0]], [[2.0, 1.0]])
    assert worst_sqnr_db([good, bad]) == bad.sqnr_db
    assert worst_sqnr_db([]) is None


def spec(name):
    return TensorSpec(name, (1, 2), "float32")


def test_outputs_pair_by_rename_then_by_name_then_by_place():
    source = [spec("boxes"), spec("scores")]
    assert pair_names(source, [spec("scores"), spec("boxes")], {}) == (
        ("boxes", "boxes"),
        ("scores", "scores"),
    )
    assert pair_names(source, [spec("o1"), spec("o0")], {"o1": "scores", "o0": "boxes"}) == (
        ("boxes", "o0"),
        ("scores", "o1"),
    )
    assert pair_names(source, [spec("o0"), spec("o1")], {}) == (("boxes", "o0"), ("scores", "o1"))


def test_another_number_of_outputs_is_an_error():
    with pytest.raises(ConversionError, match=r"the source has 1 tensors.*the result 2"):
        pair_names([spec("a")], [spec("a"), spec("b")], {})


def test_a_model_with_infinite_outputs_equals_itself():
    one = [[1.0, math.inf, -math.inf], [math.inf, 2.0, 3.0]]
    result = compared(one, one)
    assert (result.max_abs, result.cosine, result.sqnr_db) == (0.0, 1.0, SQNR_OF_EQUAL_DB)
    assert (result.top1_agreement, result.nan_samples) == (1.0, 0)


@pytest.mark.parametrize("other", [1.0, -math.inf])
def test_another_infinity_is_infinitely_far(other):
    result = compared([[1.0, math.inf]], [[1.0, other]])
    assert (result.max_abs, result.sqnr_db, result.cosine) == (math.inf, -SQNR_OF_EQUAL_DB, 0.0)


def test_outputs_of_nothing_but_nan_are_not_equal():
    result = compared([[math.nan, math.nan]], [[math.nan, math.nan]])
    assert (result.sqnr_db, result.cosine, result.max_abs) == (-SQNR_OF_EQUAL_DB, 0.0, math.inf)
    assert (result.top1_agreement, result.nan_samples) == (0.0, 1)


def test_nan_in_the_same_place_is_counted_and_left_out_of_the_rest():
    result = compared([[math.nan, 2.0], [3.0, 4.0]], [[math.nan, 2.0], [3.0, 4.0]])
    assert (result.sqnr_db, result.max_abs) == (SQNR_OF_EQUAL_DB, 0.0)
    assert (result.nan_samples, result.top1_agreement) == (1, 0.5)
