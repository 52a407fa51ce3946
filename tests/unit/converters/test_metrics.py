"""Metrics: known values, ties, offsets, and what they refuse."""

import numpy as np
import pytest
from edgeml_converters.evaluate.metrics import open_metric

from edgeml.errors import DataError, UsageError


def score(name, pairs, **options):
    tally = open_metric(name, **options).start()
    for outputs, label in pairs:
        tally.add({"out": np.asarray([outputs], np.float32)}, label)
    return tally.value()


def test_top1_counts_the_largest_score():
    assert score("top1", [([0.1, 0.9], 1), ([0.6, 0.4], 1), ([0.2, 0.8], 1), ([0.9, 0.1], 0)]) == 0.75


def test_top5_counts_a_label_among_the_five_largest():
    ranks = np.arange(10)[::-1]
    assert score("top5", [(ranks, 4), (ranks, 5)]) == 0.5


def test_a_label_offset_moves_the_class():
    assert score("top1", [([0.0, 0.0, 1.0], 1)], label_offset=1) == 1.0


@pytest.mark.parametrize(
    ("scores", "labels", "area"),
    [
        ([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1], 0.75),
        ([0.5, 0.5, 0.5, 0.5], [0, 1, 0, 1], 0.5),
        ([3.0, 2.0, 1.0], [1, 1, 0], 1.0),
    ],
)
def test_auc_of_one_score_counts_pairs_and_halves_ties(scores, labels, area):
    assert score("auc", [([one], label) for one, label in zip(scores, labels, strict=True)]) == area


def test_auc_of_two_scores_takes_the_second():
    pairs = [([0.9, 0.1], 0), ([0.2, 0.8], 1), ([0.4, 0.6], 1)]
    assert score("auc", pairs) == 1.0


def test_auc_of_one_class_is_refused():
    with pytest.raises(DataError, match="at least two classes"):
        score("auc", [([0.9], 1), ([0.2], 1)])


def test_mse_and_mae():
    pairs = [([1.0, 3.0], [1.0, 1.0]), ([0.0, 0.0], [0.0, 2.0])]
    assert score("mse", pairs) == 2.0
    assert score("mae", pairs) == 1.0


def test_mse_needs_labels_of_the_outputs_size():
    with pytest.raises(DataError, match="a label holds 1 values and the output 2"):
        score("mse", [([1.0, 3.0], 1.0)])


def test_a_function_is_a_metric(tmp_path, monkeypatch):
    (tmp_path / "mymetric.py").write_text(
        "def worst(outputs, label):\n    return outputs['out'].max()\nworst.lower_is_better = True\n"
        "def broken(outputs, label):\n    raise KeyError('x')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert score("mymetric:worst", [([1.0, 3.0], None), ([5.0, 1.0], None)]) == 4.0
    assert open_metric("mymetric:worst").drop_points(4.0, 5.0) == 25.0
    with pytest.raises(DataError, match="mymetric:broken failed on sample 0: KeyError"):
        score("mymetric:broken", [([1.0], None)])


@pytest.mark.parametrize("name", ["top3", "no_such_module:f", "math:no_such_function", "math:pi"])
def test_an_unknown_metric_is_a_usage_error(name):
    with pytest.raises(UsageError, match=r"top1, top5|cannot be imported|not a function"):
        open_metric(name)


def test_no_samples_give_no_value():
    with pytest.raises(DataError, match="no samples"):
        open_metric("top1").start().value()


def test_an_unknown_output_is_named():
    tally = open_metric("top1", output="scores").start()
    with pytest.raises(UsageError, match="no output 'scores'; outputs are: out"):
        tally.add({"out": np.zeros((1, 2))}, 0)


def test_drop_is_positive_where_the_value_is_worse():
    assert open_metric("top1").drop_points(0.9, 0.89) == pytest.approx(1.0)
    assert open_metric("mse").drop_points(2.0, 1.0) == -50.0
    assert open_metric("mse").drop_points(0.0, 0.0) == 0.0


def test_of_equal_scores_the_first_places_count():
    level = [0.0] * 12
    assert score("top5", [(level, label) for label in range(12)]) == 5 / 12
    assert score("top1", [(level, label) for label in range(12)]) == 1 / 12


@pytest.mark.parametrize("metric", ["top1", "top5"])
def test_nan_among_the_scores_is_a_miss(metric):
    assert score(metric, [([np.nan] * 6, 0), ([1.0, np.nan, 0, 0, 0, 0], 0)]) == 0.0


@pytest.mark.parametrize("metric", ["top1", "top5"])
@pytest.mark.parametrize("label", [-1, 6])
def test_a_label_outside_the_classes_is_refused(metric, label):
    with pytest.raises(DataError, match=f"label {label} is none of the output's 6 classes"):
        score(metric, [([0.0] * 6, label)])


@pytest.mark.parametrize("metric", ["top1", "top5", "auc"])
@pytest.mark.parametrize("label", [np.eye(6)[2], 2.5, np.nan])
def test_labels_that_are_no_classes_are_refused(metric, label):
    with pytest.raises(DataError, match=r"is not a class|a class is one whole number"):
        score(metric, [([0.0] * 6, label)])


def test_auc_does_not_rank_nan():
    with pytest.raises(DataError, match="1 of 2 samples came out as NaN"):
        score("auc", [([np.nan], 1), ([0.2], 0)])


@pytest.mark.parametrize("name", ["mse", "mae"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_error_that_is_no_number_is_refused(name, value):
    with pytest.raises(DataError, match="came out as NaN or infinite"):
        score(name, [([1.0], [1.0]), ([value], [1.0])])


def test_a_function_has_to_give_a_number_for_every_sample():
    with pytest.raises(DataError, match="gave nan for sample 1"):
        score("tests.unit.converters.test_metrics:distance", [([1.0], 0.0), ([np.nan], 0.0)])


def distance(outputs, label):
    return abs(float(outputs["out"].item()) - label)
