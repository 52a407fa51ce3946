"""Where plain int8 loses too much, ``convert`` keeps the fewest activations in float that mend it."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest
from edgeml_converters.convert import ConvertResult
from edgeml_converters.search.control import Control
from edgeml_converters.search.trials import Budget, fewest_that
from edgeml_converters.variants.rows import Row

from edgeml.converter import QuantizerSettings
from edgeml.words import RuntimeName
from tests.integration.optimiser import broken_int8
from tests.integration.optimiser.broken_int8 import converted

RUNTIMES = ("litert", "onnxruntime", "openvino")


def with_report(folder: Path) -> ConvertResult:
    """Convert the detection head, and write the bundle and the report."""
    model, metric = broken_int8.detector_onnx(folder), "tests.integration.optimiser.broken_int8:is_found"
    return converted(model, "onnxruntime", max_drop=0.5, metric=metric, output=folder / "out.edgeml")


def outliers(runtime: RuntimeName, folder: Path) -> Path:
    return (broken_int8.digits_tflite if runtime == "litert" else broken_int8.digits_onnx)(folder)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_channels_that_differ_in_size_are_brought_together_and_all_stays_in_int8(
    runtime: RuntimeName, tmp_path: Path
) -> None:
    result = converted(outliers(runtime, tmp_path), runtime, max_drop=0.5, output=tmp_path / "out.edgeml")
    rows = {row.name: row for row in result.rows}
    assert rows[f"{runtime}-int8_static"].status == "failed"
    made = rows[f"{runtime}-int8_static-equalized"]
    assert made.status == "ok"
    assert made.drop_points is not None
    assert made.drop_points <= 0.5
    assert "4 of 4 operators with weights quantized" in made.steps[-1].notes
    (told,) = (finding for finding in made.findings if finding.code == "equalized")
    assert "is lost" in told.message


@pytest.mark.worker("onnx2tf")
@pytest.mark.parametrize("runtime", ["litert", "onnxruntime"])  # NNCF leaves outputs in float by itself
def test_a_detection_head_with_boxes_in_pixels_keeps_its_scores(runtime: RuntimeName, tmp_path: Path) -> None:
    result = converted(
        broken_int8.detector_onnx(tmp_path),
        runtime,
        max_drop=0.5,
        metric="tests.integration.optimiser.broken_int8:is_found",
    )
    rows = {row.name: row for row in result.rows}
    plain, mixed = rows[f"{runtime}-int8_static"], result.rows[-1]
    assert mixed.name.endswith("-mixed")
    assert plain.drop_points is not None
    assert plain.drop_points > 5
    assert mixed.status == "ok"
    assert mixed.drop_points is not None
    assert mixed.drop_points <= 0.5
    assert mixed.steps[-1].notes[-1] in {f"{count} of 5 operators with weights quantized" for count in (4, 5)}
    (told,) = (finding for finding in mixed.findings if finding.code == "kept-in-float")
    assert f"{len(mixed.settings.float_tensors)} activations stay in float" in told.message


def test_every_trial_stands_in_the_record_with_what_became_of_it(tmp_path: Path) -> None:
    result = with_report(tmp_path)
    with zipfile.ZipFile(tmp_path / "out.edgeml") as bundle:
        tried = json.loads(bundle.read("record.json"))["tried"]
    fates = {(one["name"], len(one["float_tensors"])): one["fate"] for one in tried}
    assert len(fates) == len(tried)
    for row in result.rows:
        fate = fates[row.name, len(row.settings.float_tensors)]
        assert fate in ({"chosen", "kept"} if row.status == "ok" else {row.status}), row.name
    assert list(fates.values()).count("chosen") == 1
    beside = [one for one in tried if one["fate"] == "unused"]
    assert beside
    assert all(one["verdict"].partition("turned down: ")[2] for one in beside)
    page = (tmp_path / "out.report.html").read_text().partition("What was tried")[2].partition("<h2>")[0]
    assert page.count("<tr") == len(tried) + 1


def test_the_report_draws_the_ranking_and_says_what_stayed_in_float(tmp_path: Path) -> None:
    result = with_report(tmp_path)
    kept = result.rows[-1].settings.float_tensors
    assert kept
    page = (tmp_path / "out.report.html").read_text().partition("Sensitivity by layer")[2]
    assert page.partition("<h2>")[0].count("dB, in float") == len(kept)
    with zipfile.ZipFile(tmp_path / "out.edgeml") as bundle:
        rankings = json.loads(bundle.read("record.json"))["rankings"]
    assert [one["tensor"] for one in rankings["onnxruntime-int8_static"][: len(kept)]] == list(kept)


def test_a_sound_model_gets_no_mixed_variant(tmp_path: Path) -> None:
    result = converted(broken_int8.DIGITS / "digits.onnx", "onnxruntime", max_drop=0.5)
    assert [row.name for row in result.rows] == ["onnxruntime-float32", "onnxruntime-int8_static"]


def test_none_is_made_where_it_is_not_wanted(tmp_path: Path) -> None:
    result = converted(outliers("onnxruntime", tmp_path), "onnxruntime", accuracy_control=False)
    assert [row.name for row in result.rows] == ["onnxruntime-float32", "onnxruntime-int8_static"]


def test_the_same_data_give_the_same_choice(tmp_path: Path) -> None:
    model, metric = broken_int8.detector_onnx(tmp_path), "tests.integration.optimiser.broken_int8:is_found"
    one, two = (converted(model, "onnxruntime", metric=metric).rows[-1].settings for _ in range(2))
    assert one == two
    assert one.float_tensors


def test_a_spent_budget_ends_the_search_with_what_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first trial takes all of the time; nothing would ever be good enough."""
    make, trials = Control._make, []

    def slow(self: Control, settings: QuantizerSettings, doing: str) -> Row:
        row = make(self, settings, doing)
        if settings.float_tensors:
            trials.append(len(settings.float_tensors))
            object.__setattr__(self.budget, "seconds", -1.0)
        return row

    monkeypatch.setattr(Control, "_make", slow)
    model, metric = broken_int8.detector_onnx(tmp_path), "tests.integration.optimiser.broken_int8:is_found"
    mixed = converted(model, "onnxruntime", metric=metric, max_drop=-100.0).rows[-1]
    assert trials == [1]
    assert mixed.name.endswith("-mixed")
    assert {"kept-in-float", "budget-spent"} <= {finding.code for finding in mixed.findings}


def test_without_time_no_trial_begins(tmp_path: Path) -> None:
    model, metric = broken_int8.detector_onnx(tmp_path), "tests.integration.optimiser.broken_int8:is_found"
    result = converted(model, "onnxruntime", metric=metric, budget_s=0.0)
    assert [row.name for row in result.rows] == ["onnxruntime-float32", "onnxruntime-int8_static"]
    assert "budget-spent" in {finding.code for finding in result.rows[-1].findings}


@pytest.mark.parametrize("fewest", [1, 2, 3, 6, 7, 8, 9, 100])
def test_the_fewest_that_are_enough_are_found_in_few_trials(fewest: int) -> None:
    tried = fewest_that(lambda count: count >= fewest, lambda count: count, 100, Budget(60.0))
    assert tried.fewest == fewest
    assert tried.ended
    assert len(tried.made) <= 15
    assert max(tried.made) <= 2 * fewest


def test_none_is_found_where_all_are_not_enough() -> None:
    tried = fewest_that(lambda _: False, lambda count: count, 5, Budget(60.0))
    assert (tried.fewest, tried.ended) == (None, True)


def test_a_spent_budget_leaves_the_least_that_is_known_to_be_enough() -> None:
    budget = Budget(60.0)

    def make(count: int) -> int:
        if count == 4:
            object.__setattr__(budget, "seconds", -1.0)
        return count

    tried = fewest_that(lambda count: count >= 3, make, 100, budget)
    assert (list(tried.made), tried.fewest, tried.ended) == ([1, 2, 4], 4, False)
