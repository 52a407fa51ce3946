"""Which samples a variant puts into another class than its source."""

import numpy as np
import pytest
from edgeml_converters.evaluate.accuracy import evaluate
from edgeml_converters.evaluate.confusion import ClassChange
from edgeml_converters.evaluate.metrics import open_metric
from edgeml_converters.evaluate.spool import Spool


def changed(before, after, labels, tmp_path, metric="top1", **options):
    """Evaluate a model that says ``after`` against a source that said ``before``."""
    reference = Spool(tmp_path / "reference")
    for one in before:
        reference.append({"y": np.asarray(one)[None]})
    samples = [{"x": np.array([place])} for place in range(len(labels))]
    found = evaluate(
        lambda sample: {"y": np.asarray(after[int(sample["x"][0])])[None]},
        samples,
        labels=np.asarray(labels),
        metric=open_metric(metric, **options),
        reference=reference,
    )
    return [tuple(getattr(one, name) for name in ClassChange.__slots__) for one in found.changes]


def scores(*classes):
    return [np.eye(4, dtype=np.float32)[one] for one in classes]


def test_pairs_are_counted_with_who_was_right(tmp_path):
    before, after = scores(0, 0, 0, 1, 2, 3), scores(1, 1, 1, 0, 2, 2)
    assert changed(before, after, [0, 1, 2, 1, 2, 0], tmp_path) == [
        (0, 1, 3, 1, 1),
        (1, 0, 1, 1, 0),
        (3, 2, 1, 0, 0),
    ]


def test_the_source_itself_changes_nothing(tmp_path):
    assert changed(scores(0, 1), scores(0, 1), [0, 1], tmp_path) == []


def test_classes_are_counted_as_labels_are(tmp_path):
    assert changed(scores(1), scores(3), [2], tmp_path, label_offset=1) == [(0, 2, 1, 0, 1)]


def test_an_output_may_be_the_class_itself(tmp_path):
    assert changed([[2]], [[1]], [2], tmp_path) == [(2, 1, 1, 1, 0)]


def test_a_sample_of_nan_is_left_out(tmp_path):
    lost = np.array([np.nan, 0, 0, 0], np.float32)
    assert changed(scores(0), [lost], [0], tmp_path) == []


@pytest.mark.parametrize("metric", ["auc", "mae"])
def test_what_judges_no_classes_counts_none(metric, tmp_path):
    before, after = [[0.1], [0.9]], [[0.9], [0.1]]
    assert changed(before, after, [0, 1], tmp_path, metric=metric) == []
