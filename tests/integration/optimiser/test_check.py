"""``edgeml check``: a finished bundle against gates."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from click.testing import CliRunner
from edgeml_converters.convert import convert
from edgeml_converters.evaluate import latency

from edgeml.bundle import open_bundle, write_bundle
from edgeml.cli import main
from edgeml.measure import Measurement
from tests.integration.optimiser import broken_int8

INT8 = "onnxruntime-int8_static"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two variants of the digits, measured; an allowance of 100 points, so that int8 may be chosen."""
    pictures, labels = broken_int8.held_out_digits()
    result = convert(
        broken_int8.DIGITS / "digits.onnx",
        runtimes="onnxruntime",
        calibration=np.concatenate(broken_int8.calibration_digits()),
        evaluation=(np.concatenate(pictures), labels),
        output=tmp_path_factory.mktemp("check") / "digits.edgeml",
        objective="size",
        max_drop=100,
    )
    assert result.bundle is not None
    return result.bundle


def check(*words: object) -> Any:
    return CliRunner().invoke(main, ["check", *map(str, words)])


def test_what_was_chosen_holds_and_is_shown(bundle: Path) -> None:
    done = check(bundle, "--max-drop", 100, "--max-size", "1M", "--json")
    assert done.exit_code == 0, done.output
    (row,) = json.loads(done.stdout)["variants"]
    assert row["variant"] == INT8
    assert row["broken"] is None
    assert row["size_bytes"] < 100_000
    assert row["latency_ms"]["p50"] > 0


def test_a_broken_gate_ends_with_three_and_says_which(bundle: Path) -> None:
    done = check(bundle, "--max-size", 1000)
    assert done.exit_code == 3
    assert f"{INT8}: size " in done.stderr
    assert "no" in done.stdout.splitlines()[-1]


def test_any_variant_may_be_asked_for(bundle: Path) -> None:
    done = check(bundle, "--max-drop", 0, "--variant", "onnxruntime-float32", "--json")
    assert done.exit_code == 0, done.output
    (row,) = json.loads(done.stdout)["variants"]
    assert (row["variant"], row["drop_points"]) == ("onnxruntime-float32", 0.0)
    assert check(bundle, "--max-drop", 0, "--variant", "openvino-float32").exit_code == 2


def test_latency_is_taken_anew_where_a_machine_is_named(bundle: Path) -> None:
    known, fresh = (
        json.loads(check(bundle, "--max-latency-ms", 10_000, "--json", *words).stdout)["variants"][0]
        for words in ((), ("--measure", "local:"))
    )
    assert fresh["latency_ms"] != known["latency_ms"]
    assert fresh["broken"] is None


def test_a_metric_that_is_not_here_hinders_only_the_gate_that_asks_for_it(
    bundle: Path, tmp_path: Path
) -> None:
    opened = open_bundle(bundle)
    opened.extract(tmp_path / "out")
    theirs = tuple(
        replace(one, measured=replace(one.measured, metric="theirs:score"))
        for one in opened.manifest.variants
    )
    files = {name: tmp_path / "out" / name for name in opened.names}
    write_bundle(tmp_path / "theirs.edgeml", replace(opened.manifest, variants=theirs), files)
    done = check(tmp_path / "theirs.edgeml", "--max-size", "1M", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["variants"][0]["drop_points"] is None
    done = check(tmp_path / "theirs.edgeml", "--max-drop", 100)
    assert done.exit_code == 2
    assert "metric 'theirs:score' cannot be imported" in done.stderr


def test_without_a_gate_there_is_nothing_to_check(bundle: Path) -> None:
    done = check(bundle)
    assert done.exit_code == 2
    assert "--max-drop" in done.stderr


def test_a_damaged_bundle_is_an_error_of_its_own(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "half.edgeml").write_bytes(bundle.read_bytes()[:3000])
    done = check(tmp_path / "half.edgeml", "--max-drop", 1)
    assert done.exit_code == 1
    assert "half.edgeml" in done.stderr


def test_a_model_that_is_damaged_holds_no_gate(bundle: Path, tmp_path: Path) -> None:
    open_bundle(bundle).extract(tmp_path / "out")
    model = tmp_path / f"out/variants/{INT8}/model.onnx"
    content = bytearray(model.read_bytes())
    content[len(content) // 2] ^= 1
    model.write_bytes(content)
    done = check(tmp_path / "out", "--max-drop", 100)
    assert done.exit_code == 1
    assert f"{INT8}/model.onnx is damaged" in done.stderr


def test_a_machine_that_cannot_be_reached_is_named_with_the_gate(bundle: Path) -> None:
    done = check(bundle, "--max-latency-ms", 10_000, "--measure", "ssh://nobody@127.0.0.1:1")
    assert done.exit_code == 3
    assert "latency was not measured (" in done.stderr
    assert "cannot connect" in done.stderr
    assert check(bundle, "--max-latency-ms", 10_000, "--measure", "nowhere").exit_code == 2


def test_latency_is_taken_anew_with_as_many_threads(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = open_bundle(bundle)
    opened.extract(tmp_path / "out")
    variants = tuple(
        replace(one, measured=replace(one.measured, threads=2)) for one in opened.manifest.variants
    )
    files = {name: tmp_path / "out" / name for name in opened.names}
    write_bundle(tmp_path / "two.edgeml", replace(opened.manifest, variants=variants), files)
    asked: list[int] = []
    measure = latency.measure

    def watched(jobs: Sequence[latency.Job], *arguments: Any) -> Any:
        asked.extend(job.threads for job in jobs)
        return measure(jobs, *arguments)

    monkeypatch.setattr(latency, "measure", watched)
    done = check(tmp_path / "two.edgeml", "--max-latency-ms", 10_000, "--measure", "host")
    assert (done.exit_code, asked) == (0, [2])


def test_an_emulated_machine_is_the_reason_why_there_is_no_latency(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure = latency.measure

    def emulated(*arguments: Any) -> dict[str, latency.Result]:
        found = measure(*arguments)
        return {name: replace(cast("Measurement", one), emulated=True) for name, one in found.items()}

    monkeypatch.setattr(latency, "measure", emulated)
    done = check(bundle, "--max-latency-ms", 10_000, "--measure", "host")
    assert done.exit_code == 3
    assert "latency was not measured (emulated: " in done.stderr


def test_the_class_that_loses_most_is_held_by_the_record(bundle: Path) -> None:
    record = json.loads(open_bundle(bundle).read("record.json"))
    slices = next(row["slices"] for row in record["variants"] if row["name"] == INT8)
    worst = max((one for one in slices if one["count"] >= 10), key=lambda one: one["drop_points"])
    lost = worst["drop_points"]
    held = check(bundle, "--max-slice-drop", lost, "--json")
    assert held.exit_code == 0, held.output
    assert json.loads(held.stdout)["variants"][0]["worst_slice"] == worst
    broken = check(bundle, "--max-slice-drop", lost - 0.01)
    assert broken.exit_code == 3
    assert f"{INT8}: class or slice {worst['label']} loses {lost:.2f} points" in broken.stderr


def test_slices_that_no_record_tells_hold_no_gate(bundle: Path, tmp_path: Path) -> None:
    opened = open_bundle(bundle)
    files = {name: tmp_path / "out" / name for name in opened.names if name != "record.json"}
    opened.extract(tmp_path / "out")
    entries = tuple(one for one in opened.manifest.files if one.path != "record.json")
    write_bundle(tmp_path / "bare.edgeml", replace(opened.manifest, files=entries), files)
    done = check(tmp_path / "bare.edgeml", "--max-slice-drop", 100)
    assert done.exit_code == 3
    assert "no class or slice was measured" in done.stderr
    assert check(tmp_path / "bare.edgeml", "--max-drop", 100).exit_code == 0


@pytest.mark.parametrize("content", ["[]", "{", '{"variants": [{"name": "a", "slices": [{"label": 1}]}]}'])
def test_a_record_that_is_none_is_an_error_of_its_own(bundle: Path, tmp_path: Path, content: str) -> None:
    opened = open_bundle(bundle)
    opened.extract(tmp_path / "out")
    (tmp_path / "out/record.json").write_text(content)
    files = {name: tmp_path / "out" / name for name in opened.names}
    entries = tuple(one for one in opened.manifest.files if one.path != "record.json")
    write_bundle(tmp_path / "odd.edgeml", replace(opened.manifest, files=entries), files)
    done = check(tmp_path / "odd.edgeml", "--max-slice-drop", 100)
    assert done.exit_code == 1
    assert "odd.edgeml: record.json" in done.stderr
