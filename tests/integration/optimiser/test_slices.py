"""Accuracy by slices of the data, as a user declares them."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from edgeml.cli import main
from tests.integration.optimiser import broken_int8

CAMERAS = np.array(["day", "night"])


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Write digits of two cameras; those of the night are dark, so that no model knows all of them."""
    pictures, labels = broken_int8.held_out_digits()
    cameras = np.arange(len(labels)) % 4 == 0
    arrays = np.concatenate(pictures) * np.where(cameras, 0.12, 1.0)[:, None, None, None]
    np.savez(
        tmp_path / "data.npz",
        x=arrays.astype(np.float32),
        y=labels,
        camera=CAMERAS[cameras.astype(int)],
        number=np.linspace(0, 1, len(labels)),
    )
    np.savez(tmp_path / "calibration.npz", x=np.concatenate(broken_int8.calibration_digits()))
    return tmp_path


def converted(data: Path, *words: object) -> Any:
    return CliRunner().invoke(
        main,
        [
            *("convert", str(broken_int8.DIGITS / "digits.onnx"), "--runtime", "onnxruntime", "--no-measure"),
            *("--calibration", f"{data}/calibration.npz:x", "--evaluate", f"{data}/data.npz:x,y"),
            *("--output", str(data / "out.edgeml"), *map(str, words)),
        ],
    )


def test_the_record_and_the_report_tell_each_slice(data: Path) -> None:
    done = converted(data, "--slices", "camera", "--scheme", "int8_static", "--max-drop", 100)
    assert done.exit_code == 0, done.output
    with zipfile.ZipFile(data / "out.edgeml") as bundle:
        (row,) = json.loads(bundle.read("record.json"))["variants"]
    slices = {one["label"]: one for one in row["slices"]}
    assert {label: one["count"] for label, one in slices.items()} == {0: 225, 1: 75}
    assert slices[0]["reference"] > slices[1]["reference"]
    page = (data / "out.report.html").read_text()
    assert sum(one["count"] for one in row["classes"]) == 300
    assert len(row["classes"]) == 10
    for kind, parts in (("slice", row["slices"]), ("class", row["classes"])):
        assert (f"int8_static, by {kind} <" in page) == any(one["drop_points"] for one in parts)


def test_rare_classes_are_told_apart_from_the_others(data: Path) -> None:
    """A class of which 5 samples are left, in data that int8 does not know well."""
    arrays = np.load(data / "data.npz")
    few = np.flatnonzero(arrays["y"] == 3)[:5]
    kept = np.sort(np.concatenate([np.flatnonzero(arrays["y"] != 3), few]))
    dark = arrays["x"][kept] * 0.12
    np.savez(data / "data.npz", x=dark, y=arrays["y"][kept])
    done = converted(data, "--scheme", "float32", "--scheme", "int8_static", "--max-drop", 100)
    assert done.exit_code == 0, done.output
    with zipfile.ZipFile(data / "out.edgeml") as bundle:
        row = json.loads(bundle.read("record.json"))["variants"][-1]
    assert any(one["drop_points"] for one in row["slices"])
    assert row["classes"] == []
    page = (data / "out.report.html").read_text()
    assert "the rare (1 of 5 samples together): " in page
    changed = sum(one["count"] for one in row["changes"])
    assert f"{changed} of {len(kept)} samples are in another class" in page
    lost, won = (sum(one[name] for one in row["changes"]) for name in ("lost", "won"))
    assert (lost - won) / len(kept) == pytest.approx(row["float_accuracy"] - row["accuracy"])


def test_a_gate_on_the_worst_slice_is_held(data: Path) -> None:
    done = converted(data, "--slices", "camera", "--scheme", "int8_static", "--max-slice-drop", -100)
    assert done.exit_code == 3
    assert "class or slice" in done.stderr
    assert "allowed -100" in done.stderr


@pytest.mark.parametrize("key", ["number", "nothing"])
def test_what_parts_nothing_is_refused(key: str, data: Path) -> None:
    done = converted(data, "--slices", key)
    assert done.exit_code == 1
    assert key in done.stderr
