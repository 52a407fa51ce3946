"""Each way that data can be wrong, and its name."""

import numpy as np
import pytest
from edgeml_converters.evaluate.lints import (
    DataWatch,
    check_label_names,
    check_labels,
    lint_calibration,
    lint_constant,
    lint_pair,
    lint_raw,
    lint_seen_ranges,
)

from edgeml.errors import DataError
from edgeml.preprocess import Preprocess
from edgeml.tensors import TensorSpec

X = TensorSpec("x", (1, 4, 4, 3), "float32")


def data(count, scale=1.0, offset=0.0, seed=0):
    rng = np.random.default_rng(seed)
    return [{"x": (rng.normal(size=(1, 4, 4, 3)) * scale + offset).astype(np.float32)} for _ in range(count)]


def summarise(role, samples, inputs):
    watch = DataWatch(role, inputs)
    for sample in samples:
        watch.see(sample)
    return watch.summary()


def codes(findings):
    return {finding.code for finding in findings}


def test_sound_data_have_no_finding():
    calibration = summarise("calibration", data(64), (X,))
    evaluation = summarise("evaluation", data(64, seed=1), (X,))
    assert lint_calibration(calibration) == ()
    assert lint_constant(evaluation) == ()
    assert lint_pair(calibration, evaluation) == ()


@pytest.mark.parametrize(("value", "word"), [(np.nan, "NaN"), (np.inf, "infinite")])
def test_nan_and_infinity_are_errors_that_name_sample_and_input(value, word):
    samples = data(5)
    samples[3]["x"][0, 1, 1, 1] = value
    with pytest.raises(DataError, match=f"calibration sample 3 of input 'x' has {word}"):
        summarise("calibration", samples, (X,))


def test_few_samples_are_a_warning():
    found = lint_calibration(summarise("calibration", data(31), (X,)))
    assert codes(found) == {"few-calibration-samples"}
    assert "31 samples" in found[0].message


@pytest.mark.parametrize(
    ("scale", "offset"), [(1 / 255, 0.0), (255.0, 0.0), (1.0, 5.0)], ids=["forgotten", "twice", "offset"]
)
def test_calibration_at_another_scale_is_told_with_both_ranges(scale, offset):
    calibration = summarise("calibration", data(64, scale, offset), (X,))
    evaluation = summarise("evaluation", data(64, seed=1), (X,))
    (finding,) = lint_pair(calibration, evaluation)
    assert finding.code == "calibration-scale"
    assert finding.message.startswith("calibration data span [")
    assert "evaluation data [" in finding.message


def test_samples_in_both_sets_are_counted():
    calibration = summarise("calibration", data(40), (X,))
    evaluation = summarise("evaluation", data(40)[:10] + data(30, seed=1), (X,))
    (finding,) = lint_pair(calibration, evaluation)
    assert finding.code == "calibration-evaluation-overlap"
    assert "10 of 40" in finding.message


def test_constant_and_repeated_samples_are_told():
    samples = data(40)
    samples[7] = {"x": np.full((1, 4, 4, 3), 3.0, np.float32)}
    samples[8] = samples[9]
    found = lint_calibration(summarise("calibration", samples, (X,)))
    assert codes(found) == {"constant-samples", "repeated-samples"}
    assert "sample 7" in found[0].message


def test_a_transposed_sample_is_told_how_to_turn():
    with pytest.raises(DataError, match=r"sample 0.*looks like NCHW.*transpose\(0, 2, 3, 1\)"):
        summarise("calibration", [{"x": np.zeros((1, 3, 4, 4), np.float32)}], (X,))


def test_another_dtype_and_another_name_are_errors():
    with pytest.raises(DataError, match=r"sample 0.*got float64, needs float32"):
        summarise("calibration", [{"x": np.zeros((1, 4, 4, 3))}], (X,))
    with pytest.raises(DataError, match=r"no input 'y'; inputs are: x"):
        summarise("calibration", [{"y": np.zeros((1, 4, 4, 3), np.float32)}], (X,))


def test_labels_must_have_a_place_in_the_output():
    watch = DataWatch("evaluation", (X,))
    for label, sample in enumerate(data(12)):
        watch.see(sample, label)
    check_labels(watch.summary(), classes=12, label_offset=0)
    with pytest.raises(DataError, match=r"labels run from 0 to 11.*11 places"):
        check_labels(watch.summary(), classes=11, label_offset=0)
    with pytest.raises(DataError, match="places"):
        check_labels(watch.summary(), classes=12, label_offset=1)


def test_data_outside_what_a_quantized_source_was_made_for():
    summary = summarise("evaluation", data(40, scale=100.0), (X,))
    (finding,) = lint_seen_ranges(summary, {"x": (-3.0, 3.0)}, "the int8 source")
    assert finding.code == "range-outside-model"
    assert lint_seen_ranges(summary, {"other": (-1.0, 1.0)}, "the int8 source") == ()


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int64])
def test_integers_that_reach_a_float_input_as_they_are_are_a_warning(dtype):
    (found,) = lint_raw("evaluation", {"x": np.zeros((4, 4, 3), dtype)}, (X,), Preprocess(resize=(4, 4)))
    assert found.code == "undeclared-integer-data"
    assert np.dtype(dtype).name in found.message
    assert "dtype=float32" in found.remedy


@pytest.mark.parametrize(
    "declared", [Preprocess(scale=1 / 255), Preprocess(mean=(127.5,)), Preprocess(dtype="float32")]
)
def test_declared_integers_are_no_finding(declared):
    assert lint_raw("evaluation", {"x": np.zeros((4, 4, 3), np.uint8)}, (X,), declared) == ()


def test_integers_for_an_integer_input_and_floats_are_no_finding():
    tokens = TensorSpec("x", (1, 8), "int64")
    assert lint_raw("evaluation", {"x": np.zeros(8, np.int64)}, (tokens,), Preprocess()) == ()
    assert lint_raw("evaluation", {"x": np.zeros((4, 4, 3), np.float32)}, (X,), Preprocess()) == ()


SCORES = TensorSpec("scores", (1, 12), "float32")


def test_class_names_of_another_number_than_the_output_are_an_error():
    with pytest.raises(DataError, match=r"10 labels, output 'scores' has 12"):
        check_label_names(["word"] * 10, (SCORES,), None, 0)
    with pytest.raises(DataError, match="which label_offset leaves 11"):
        check_label_names(["word"] * 12, (SCORES,), None, 1)
    check_label_names(["word"] * 12, (SCORES,), None, 0)
    check_label_names(["word"] * 11, (SCORES,), None, 1)


@pytest.mark.parametrize("shape", [(1, 10, 4), (1, 1), (1, None)])
def test_class_names_are_not_counted_where_the_output_is_no_vector_of_scores(shape):
    check_label_names(["word"] * 90, (TensorSpec("y", shape, "float32"),), None, 0)
