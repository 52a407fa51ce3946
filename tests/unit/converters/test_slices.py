"""Accuracy class by class."""

from dataclasses import replace

import numpy as np
from edgeml_converters.evaluate.accuracy import evaluate
from edgeml_converters.evaluate.metrics import open_metric
from edgeml_converters.evaluate.slices import SliceDrop, SliceValue, slice_drops
from edgeml_converters.variants.gates import Gates
from edgeml_converters.variants.rows import Row

from edgeml.converter import QuantizerSettings

LABELS = np.array([0] * 20 + [1] * 12 + [2] * 3)


def evaluated(wrong=(), metric="top1", labels=LABELS):
    """Evaluate a model that knows every label but those at the places ``wrong``."""
    samples = [{"x": np.array([place])} for place in range(len(labels))]

    def run(sample):
        place = int(sample["x"][0])
        right = int(np.asarray(labels).reshape(len(labels), -1)[place, 0])
        return {"y": np.eye(4)[None, 3 if place in wrong else right]}

    return evaluate(run, samples, labels=labels, metric=open_metric(metric))


def test_each_class_has_its_own_share():
    found = evaluated(wrong={0, 1, 20})
    assert found.value == 32 / 35
    assert found.slices == (SliceValue(0, 20, 0.9), SliceValue(1, 12, 11 / 12), SliceValue(2, 3, 1.0))


def test_what_has_no_classes_has_no_slices():
    assert evaluated(metric="auc", labels=np.array([0, 1] * 10)).slices == ()
    assert evaluated(metric="mse", labels=np.zeros((5, 4))).slices == ()


def test_a_part_that_the_metric_says_nothing_of_is_left_out():
    """The area under a curve needs two classes, which one of the parts has not."""
    samples = [{"x": np.array([place])} for place in range(40)]
    labels, parts = np.array([0, 1] * 10 + [1] * 20), np.arange(40) // 20

    def run(sample):
        return {"y": np.array([[float(labels[sample["x"][0]])]])}

    found = evaluate(run, samples, labels=labels, metric=open_metric("auc"), slices=parts)
    assert found.slices == (SliceValue(0, 20, 1.0),)


def test_what_loses_most_stands_first():
    metric = open_metric("top1")
    drops = slice_drops(metric, evaluated().slices, evaluated(wrong={20, 21, 22, 34}).slices)
    assert [(one.label, round(one.drop_points, 1)) for one in drops] == [(2, 33.3), (1, 25.0), (0, 0.0)]


def row(*slices):
    known = Row("litert-int8_static", "litert", "int8_static", ("board",), QuantizerSettings())
    return replace(known, slices=slices, drop_points=0.1)


def test_the_gate_looks_at_the_worst_class_with_samples_enough():
    few, many = SliceDrop(2, 3, 1.0, 0.5, 50.0), SliceDrop(1, 12, 1.0, 0.75, 25.0)
    broken = Gates(max_slice_drop=20).broken_by(row(few, many))
    assert broken == "class or slice 1 loses 25.00 points on 12 samples, allowed 20"
    assert Gates(max_slice_drop=30).broken_by(row(few, many)) is None


def test_a_loss_that_is_no_number_holds_no_gate():
    lost = row(SliceDrop(1, 12, 1.0, 0.75, float("nan")))
    assert Gates(max_slice_drop=30).broken_by(lost) is not None
    assert Gates(max_drop=30).broken_by(replace(lost, drop_points=float("nan"))) is not None


def test_a_gate_that_nothing_can_show_is_broken():
    assert Gates(max_slice_drop=30).broken_by(row(SliceDrop(2, 3, 1.0, 1.0, 0.0))) == (
        "no class or slice was measured on 10 samples or more"
    )
    assert Gates(max_slice_drop=30).broken_by(row()) == "no class or slice was measured on 10 samples or more"
