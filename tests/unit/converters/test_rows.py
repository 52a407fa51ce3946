"""How rows without an artifact are told: briefly, and once for each reason."""

from pathlib import Path

import pytest
from edgeml_converters.graph import Availability, no_way, plan
from edgeml_converters.report.bundle import version_range
from edgeml_converters.report.cells import sqnr
from edgeml_converters.search.choose import choose
from edgeml_converters.variants.gates import Gates
from edgeml_converters.variants.request import Request, wanted_rows
from edgeml_converters.variants.rows import Row, lacking

from edgeml import plugins
from edgeml.converter import QuantizerSettings, State
from edgeml.errors import PlanError
from edgeml.targets import target

NOTHING = Availability(lambda _: "not installed", lambda _: "not installed")


def row(name, status="unavailable", reason="long", brief=""):
    runtime, scheme = name.split("-")
    return Row(name, runtime, scheme, ("host",), QuantizerSettings(), status, reason, brief)


def test_rows_that_share_what_people_are_told_are_one_group():
    rows = [
        row("litert-float32", reason="the path a → b lacks …", brief="needs the worker tensorflow"),
        row("onnxruntime-float32", status="failed", reason="broken"),
        row("litert-float16", reason="the path a → c lacks …", brief="needs the worker tensorflow"),
        row("openvino-float32", status="ok"),
    ]
    assert [(one.status, one.names, one.reason) for one in lacking(rows)] == [
        ("unavailable", ("litert-float32", "litert-float16"), "needs the worker tensorflow"),
        ("failed", ("onnxruntime-float32",), "broken"),
    ]


def test_a_target_without_a_variant_is_told_each_reason_once():
    rows = [row("litert-float32", brief="needs data"), row("litert-float16", brief="needs data")]
    choice = choose("host", rows, Gates(), None)
    assert choice.reason == "no variant could be made: litert-float32, litert-float16: needs data"


@pytest.mark.parametrize(
    ("source", "goal", "says"),
    [
        ("onnx", ("openvino", "int8_dynamic"), "openvino has no int8_dynamic; docs/reference/schemes.md"),
        ("tflite", ("onnx", "int16x8"), "onnxruntime has no int16x8; docs/reference/schemes.md"),
    ],
)
def test_a_scheme_that_a_runtime_does_not_have_is_told_so(source, goal, says):
    steps = plugins.conversion_steps()
    wanted = State(*goal)
    with pytest.raises(PlanError):
        plan(State(source, "float32"), wanted, steps, NOTHING)
    runtime = {"openvino": "openvino", "onnx": "onnxruntime"}[goal[0]]
    assert no_way(runtime, State(source, "float32"), wanted, steps) == says


def test_a_quantized_source_is_told_to_be_one():
    steps = plugins.conversion_steps()
    said = no_way("litert", State("tflite", "int8_static"), State("tflite", "int16x8"), steps)
    assert said == "the model is int8_static already; start from the float32 model"


def test_what_a_path_lacks_is_one_line_with_the_command():
    here = Availability(lambda _: None, lambda _: "not installed")
    found = plan(State("savedmodel", "float32"), State("tflite", "float32"), plugins.conversion_steps(), here)
    assert found.lacks == "needs the worker tensorflow: edgeml workers install tensorflow"


def test_only_schemes_that_multiply_8_bit_numbers_have_a_reduced_twin():
    targets = (target("x86-64-vnni"), target("x86-64-v3"))
    schemes = ("float32", "float16", "int8_dynamic", "int8_static", "int16x8", "int8_weights", "int4_weights")
    rows = wanted_rows(Request(Path("m.onnx"), targets, schemes=schemes))
    assert {one.name for one in rows if one.name.endswith("-reduced")} == {
        "onnxruntime-int8_static-reduced",
        "onnxruntime-int8_dynamic-reduced",
        "openvino-int8_static-reduced",
    }


@pytest.mark.parametrize(("value", "shown"), [(None, "–"), (300.0, "exact"), (28.34, "28.3")])
def test_an_sqnr_is_shown_to_people(value, shown):
    assert sqnr(value) == shown


@pytest.mark.parametrize(
    ("version", "taken"),
    [("2.3.0", ">=2.3,<3"), ("2026.4.1-abc", ">=2026.4,<2027"), ("", ""), ("unknown", "")],
)
def test_a_variant_runs_in_the_engine_it_was_tried_with_and_its_minor_successors(version, taken):
    assert version_range(version) == taken
