"""What a finished conversion tells a person besides its figures."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from edgeml_converters.evaluate.metrics import open_metric
from edgeml_converters.search import findings
from edgeml_converters.variants.request import Request
from edgeml_converters.variants.rows import Row

from edgeml.converter import QuantizerSettings
from edgeml.data import DataDeclaration
from edgeml.manifest import Latency, Measured
from edgeml.preprocess import Postprocess, Preprocess
from edgeml.targets import target
from edgeml.tensors import TensorSpec

DATA = DataDeclaration("data.npz")


def request(*names, **changed):
    return Request(Path("m.onnx"), tuple(target(name) for name in names), **changed)


def row(name, targets, status="ok", reason="", latency=None):
    runtime, scheme = name.split("-", 1)
    measured = Measured(latency_ms=latency)
    return Row(name, runtime, scheme, targets, QuantizerSettings(), status, reason, measured=measured)


@pytest.mark.parametrize(
    ("classes", "accuracy", "near"),
    [
        (12, 0.108, True),
        (12, 0.26, False),
        (2, 0.55, True),
        (2, 0.62, False),
        (1000, 0.002, True),
        (1, 0.0, False),
    ],
)
def test_a_source_that_guesses_is_told(classes, accuracy, near):
    found = findings.near_chance(open_metric("top1"), accuracy, np.arange(classes))
    assert [one.code for one in found] == ["accuracy-near-chance"] * near
    if near:
        assert "label_offset" in found[0].remedy


def test_only_top1_has_a_chance_level():
    assert findings.near_chance(open_metric("mse"), 0.01, np.arange(12)) == ()
    assert findings.near_chance(open_metric("top1"), None, np.arange(12)) == ()


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, "no calibration or evaluation data"),
        ({"calibration": DATA}, "no evaluation data"),
        ({"evaluation": DATA}, "the evaluation data have no labels"),
    ],
)
def test_unknown_accuracy_is_a_finding_whatever_else_was_given(given, says):
    (found,) = findings.accuracy_unknown(request("raspberry-pi-5", **given), None)
    assert found.code == "no-data"
    assert found.message.startswith(says)
    assert "20 dB" in found.message


def test_forgotten_calibration_is_said_unless_schemes_were_named():
    (found,) = findings.not_calibrated(request("raspberry-pi-5"))
    assert (found.code, found.severity) == ("no-calibration", "info")
    assert "int8_static was not made" in found.message
    assert findings.not_calibrated(request("raspberry-pi-5", schemes=("float32",))) == ()
    assert findings.not_calibrated(request("raspberry-pi-5", calibration=DATA)) == ()


def test_a_runtime_that_a_missing_worker_took_away_is_named_with_its_targets():
    boards = ("raspberry-pi-4", "raspberry-pi-5")
    rows = [
        row("litert-float32", boards, "unavailable", "needs worker onnx2tf: edgeml workers install onnx2tf"),
        row("onnxruntime-float32", boards),
        row("onnxruntime-int8_static", boards, "failed", "no"),
    ]
    (found,) = findings.runtimes_left_out(request(*boards), rows)
    assert found.code == "runtime-left-out"
    assert found.subject == "raspberry-pi-4, raspberry-pi-5"
    assert "there is no litert variant" in found.message
    assert "edgeml workers install onnx2tf" in found.message


def test_a_runtime_that_was_not_asked_for_is_no_loss():
    assert (
        findings.runtimes_left_out(request("raspberry-pi-4"), [row("litert-float32", ("raspberry-pi-4",))])
        == ()
    )


def test_an_accelerator_that_nothing_is_made_for_is_said():
    (found,) = findings.accelerators_left_out(request("coral-usb", "raspberry-pi-4"), ())
    assert (found.code, found.subject) == ("accelerator-not-used", "coral-usb")
    assert "edgetpu" in found.message
    assert "--calibration" in found.remedy


def test_an_accelerator_whose_compiler_is_missing_says_what_is_to_be_done():
    compiled = replace(row("litert-int8_static-edgetpu", ("coral-usb",)), accelerator="edgetpu")
    asked = request("coral-usb", "coral-dev-board")
    used, unused = compiled, compiled.without("unavailable", "no compiler: install it")
    assert [one.subject for one in findings.accelerators_left_out(asked, (used,))] == ["coral-dev-board"]
    found = findings.accelerators_left_out(asked, (unused,))
    assert {one.remedy for one in found} == {"do what litert-int8_static-edgetpu says"}
    assert len(found) == 2


def test_scattered_latencies_are_a_finding():
    (found,) = findings.noisy(row("litert-float32", (), latency=Latency(1.0, 3.5, 9.0)))
    assert found.code == "noisy-measurement"
    assert "p95 is 3.5 times p50" in found.message
    assert findings.noisy(row("litert-float32", (), latency=Latency(1.0, 2.0, 9.0))) == ()
    assert findings.noisy(row("litert-float32", ())) == ()


def test_softmax_on_probabilities_is_a_finding_and_on_scores_none():
    declared = request("raspberry-pi-5", postprocess=Postprocess(softmax=True))
    (found,) = findings.softmax_twice(
        declared, [{"y": np.array([[0.2, 0.8]])}, {"y": np.array([[0.5, 0.5]])}]
    )
    assert (found.code, found.subject) == ("softmax-twice", "output y")
    for scores in ([[-1.0, 2.0]], [[1.0, 2.0]], [[1.0]]):
        assert findings.softmax_twice(declared, [{"y": np.array(scores)}]) == ()
    assert findings.softmax_twice(request("raspberry-pi-5"), [{"y": np.array([[0.2, 0.8]])}]) == ()


def test_outputs_of_nan_are_a_finding():
    lost, sound = {"y": np.array([[np.nan, 1.0]])}, {"y": np.array([[0.5, 1.0]])}
    (found,) = findings.nan_outputs([], [lost, sound])
    assert (found.code, found.subject) == ("nan-outputs", "output y")
    assert "NaN for 1 of 2 samples" in found.message
    assert findings.nan_outputs([], [sound, sound]) == ()


def test_a_layout_for_what_has_no_channels_is_a_finding():
    declared = request("raspberry-pi-5", preprocess=Preprocess(layout="nchw"))
    (found,) = findings.layout_without_channels(declared, [TensorSpec("x", (1, 10), "float32")])
    assert found.code == "layout-without-channels"
    image = TensorSpec("image", (1, 3, 8, 8), "float32")
    assert findings.layout_without_channels(declared, [TensorSpec("x", (1, 10), "float32"), image]) == ()


def test_class_names_that_only_the_data_tell_and_that_do_not_fit_are_a_finding():
    scores = [TensorSpec("scores", (1, 12), "float32")]
    (found,) = findings.class_names_of_data(request("raspberry-pi-5"), ["cat", "dog"], scores)
    assert found.code == "label-count"
    assert "2 labels, output 'scores' has 12" in found.message
    assert findings.class_names_of_data(request("raspberry-pi-5"), ["word"] * 12, scores) == ()
    named = request("raspberry-pi-5", label_names=("word",) * 12)
    assert findings.class_names_of_data(named, ["cat", "dog"], scores) == ()


def test_a_search_that_was_stopped_among_its_trials_says_so() -> None:
    (told,) = findings.interrupted(())
    assert told.code == "search-interrupted"
    assert told.subject == "trials and measurements to come"
