"""Where plain int8 loses too much, ``convert`` tries other settings first, and tells what came of each."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from edgeml_converters.search.candidates import Look
from edgeml_converters.search.control import Control, to_go_on_with
from edgeml_converters.variants.rows import Row
from PIL import Image

from edgeml.converter import QuantizerSettings
from edgeml.words import RuntimeName
from tests.integration import quantize_models as models
from tests.integration.optimiser import broken_int8

RUNTIMES: tuple[RuntimeName, ...] = ("litert", "onnxruntime", "openvino")
LOOK = re.compile(r"-?\d+\.\d dB on 50 samples, -?\d+\.\d without")
converted = partial(broken_int8.converted, max_drop=0.5)


def coarse(runtime: RuntimeName, folder: Path) -> Path:
    return (broken_int8.coarse_tflite if runtime == "litert" else broken_int8.coarse_onnx)(folder)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_biases_are_corrected_and_all_stays_in_int8(runtime: RuntimeName, tmp_path: Path) -> None:
    result = converted(coarse(runtime, tmp_path), runtime)
    plain, kept = result.rows[-2:]
    assert plain.name == f"{runtime}-int8_static"
    assert plain.drop_points is not None
    assert plain.drop_points > 4
    assert kept.name.startswith(f"{runtime}-int8_static-corrected")
    assert kept.status == "ok"
    assert kept.drop_points is not None
    assert kept.drop_points <= 0.5
    assert "4 of 4 operators with weights quantized" in kept.steps[-1].notes
    (told,) = (finding for finding in kept.findings if finding.code == "tuned")
    assert told.message.startswith("biases take back what rounded weights add")
    assert LOOK.search(told.message)


def test_what_was_turned_down_is_told(tmp_path: Path) -> None:
    result = converted(coarse("openvino", tmp_path), "openvino")
    beside = [row for row in result.outcome.data.tried if row not in result.rows and row.status == "gate"]
    assert len(beside) >= 2
    for row in beside:
        assert LOOK.match(row.reason), row.reason
        assert row.artifact is None
    (later,) = (row for row in beside if row.settings.bias_correction)
    assert later.reason.endswith(f"{result.rows[-1].name}, which comes closer, loses no more than allowed")


def test_a_search_looks_for_settings_that_lose_less_than_what_holds(tmp_path: Path) -> None:
    model = coarse("onnxruntime", tmp_path)
    asked = converted(model, "onnxruntime", max_drop=50)
    assert [row.name for row in asked.rows] == ["onnxruntime-float32", "onnxruntime-int8_static"]
    searched = {row.name: row for row in converted(model, "onnxruntime", max_drop=50, schemes="auto").rows}
    plain, better = (searched[f"onnxruntime-int8_static{end}"] for end in ("", "-corrected"))
    assert plain.drop_points is not None
    assert better.drop_points is not None
    assert better.drop_points < plain.drop_points


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_sound_row_tries_nothing(runtime: RuntimeName) -> None:
    result = converted(broken_int8.DIGITS / "digits.onnx", runtime)
    assert [row.name for row in result.outcome.data.tried] == [
        f"{runtime}-float32",
        f"{runtime}-int8_static",
    ]


def test_the_same_data_give_the_same_choice(tmp_path: Path) -> None:
    model = coarse("openvino", tmp_path)
    one, two = (converted(model, "openvino") for _ in range(2))
    assert [row.settings for row in one.rows] == [row.settings for row in two.rows]
    told = ([(row.name, row.reason) for row in made.outcome.data.tried] for made in (one, two))
    assert next(told) == next(told)


def test_a_rule_for_ranges_that_was_asked_for_stays(tmp_path: Path) -> None:
    result = converted(coarse("openvino", tmp_path), "openvino", method="minmax")
    assert {row.settings.method for row in result.outcome.data.tried} == {"minmax"}
    assert result.rows[-1].name == "openvino-int8_static-corrected"


def test_biases_corrected_under_other_ranges_say_nothing_of_these() -> None:
    start = QuantizerSettings()
    corrected = replace(start, bias_correction=True)
    elsewhere = Look(replace(corrected, method="minmax"), 35.0)
    plain = Row("plain", "litert", "int8_static", (), start)
    assert to_go_on_with(start, [elsewhere], plain, []) == start
    assert to_go_on_with(start, [elsewhere, Look(corrected, 34.0)], plain, []) == corrected
    assert to_go_on_with(corrected, [Look(start, 34.0)], plain, []) == start


def test_biases_stay_as_they_are_where_corrected_ones_cost_accuracy() -> None:
    start = QuantizerSettings()
    corrected = replace(start, bias_correction=True)
    closer = [Look(corrected, 34.0)]
    plain = Row("plain", "litert", "int8_static", (), start, status="ok", drop_points=0.67)
    worse = Row("corrected", "litert", "int8_static", (), corrected, status="ok", drop_points=1.56)
    assert to_go_on_with(start, closer, plain, [worse]) == start
    assert to_go_on_with(start, closer, plain, [replace(worse, drop_points=0.6)]) == corrected
    assert to_go_on_with(start, closer, plain, []) == corrected
    assert to_go_on_with(start, closer, replace(plain, status="failed"), [worse]) == corrected


def test_weights_of_seven_bits_are_not_corrected_twice(tmp_path: Path) -> None:
    result = converted(coarse("onnxruntime", tmp_path), "onnxruntime", targets="x86-64-v3", max_drop=-100.0)
    assert not any(row.settings.bias_correction for row in result.outcome.data.tried)


def test_a_spent_budget_leaves_the_best_of_what_was_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first candidate that is judged takes all of the time; nothing would ever be good enough."""
    make = Control._make

    def slow(self: Control, settings: QuantizerSettings, doing: str) -> Row:
        row = make(self, settings, doing)
        object.__setattr__(self.budget, "seconds", -1.0)
        return row

    monkeypatch.setattr(Control, "_make", slow)
    result = converted(coarse("openvino", tmp_path), "openvino", max_drop=-100.0)
    kept = result.rows[-1]
    assert kept.settings.bias_correction
    assert "budget-spent" in {finding.code for finding in kept.findings}
    late = [
        row.reason
        for row in result.outcome.data.tried
        if row.reason.endswith("no time was left to evaluate it")
    ]
    assert len(late) == 1


@pytest.mark.soak
@pytest.mark.data
def test_mobilenet_v1_holds_half_a_point_on_openvino_in_int8(data_dir: Path) -> None:
    """With activations in float alone it lost 1.11 points at best."""
    rows = [(np.asarray(Image.open(path)), index) for path, index in models.mobilenet_rows(data_dir)]
    calibration = np.stack([picture for picture, index in rows if index % 20 == 0])
    evaluation = np.stack([picture for picture, index in rows if index % 20])
    plain, kept = converted(
        data_dir / "mobilenet" / "mobilenet_v1_0.25_128_float.onnx",
        "openvino",
        calibration=calibration,
        evaluation=(evaluation, np.array([index + 1 for _, index in rows if index % 20])),
        preprocess={"resize": 128, "mean": 127.5, "std": 127.5, "layout": "nchw"},
        schemes="int8_static",
    ).rows
    assert plain.status == "gate"
    assert kept.status == "ok"
    assert kept.drop_points is not None
    assert kept.drop_points <= 0.5
    assert "28 of 28 operators with weights quantized" in kept.steps[-1].notes


def test_a_search_shows_no_scheme_that_the_runtime_has_not() -> None:
    model = broken_int8.DIGITS / "digits.onnx"
    searched = converted(model, "openvino", schemes="auto")
    assert {row.scheme for row in searched.rows} == {"float32", "float16", "int8_static"}
    (asked,) = converted(model, "openvino", schemes=("int8_dynamic",)).rows
    assert asked.status == "unavailable"
    assert "openvino has no int8_dynamic" in asked.told


def test_each_trial_keeps_golden_outputs_of_its_own(tmp_path: Path) -> None:
    """The trials of a search share a name; the last one's outputs went into the bundle."""
    result = converted(
        broken_int8.detector_onnx(tmp_path),
        "onnxruntime",
        metric="tests.integration.optimiser.broken_int8:is_found",
    )
    made = {row.sha256: row.golden for row in result.outcome.data.tried if row.golden is not None}
    assert len(made) > 3
    assert len(set(made.values())) == len(made)
