"""What a person at a terminal reads, where an empty table would say too little."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from edgeml_devices.operator.telemetry_cli import _save_inputs, telemetry
from edgeml_devices.operator.telemetry_tables import print_coverage, print_slow_drift

from tests.integration.server_process import ServerProcess
from tests.integration.telemetry.served import edgeml


def test_drift_of_nothing_is_not_called_no_drift(served: ServerProcess) -> None:
    said = edgeml(served, "telemetry", "drift").stdout
    assert "nothing was judged" in said
    assert "no drift" not in said
    assert json.loads(edgeml(served, "telemetry", "drift", "--json").stdout)["judged"] == 0


def test_samples_without_inputs_say_so(served: ServerProcess, tmp_path: Path) -> None:
    folder = tmp_path / "inputs"
    said = edgeml(served, "telemetry", "samples", "--limit", "2", "--save", str(folder)).stdout
    assert "no input was sent with these" in said
    assert not folder.exists()


def test_inputs_are_saved_inside_the_folder_whatever_a_device_calls_them(tmp_path: Path) -> None:
    sample = {"at": 1e9, "why": "unsure", "label": "../../x", "raw": "UEs="}
    one = {"device": "pi", "model": "kws", "release": 1, "sample": sample}
    assert _save_inputs([one, {**one, "sample": {**sample, "raw": None}}], tmp_path / "a" / "b") == 1
    (file,) = tmp_path.rglob("*.npz")
    assert file.parent == tmp_path / "a" / "b"
    assert file.name == "pi-kws-1-20010909T014640.000000Z-unsure-.._.._x.npz"
    assert file.read_bytes() == b"PK"


def test_a_copy_of_a_device_is_told_of(capsys: pytest.CaptureFixture[str]) -> None:
    counts = dict.fromkeys(("received", "missing", "evicted", "damaged", "merged", "overwritten", "boots"), 1)
    day = {"device": "pi", "day": "2026-11-26", "covered": 0.5, "gaps": [], **counts}
    print_coverage({"answers": [{**day, "epochs": 1}]})
    assert "epochs" not in capsys.readouterr().out
    print_coverage({"answers": [{**day, "epochs": 2}]})
    assert "pi, 2026-11-26: counted in 2 epochs: a copy of the device sends" in capsys.readouterr().out


def test_slow_drift_of_nothing_is_not_called_no_drift(served: ServerProcess) -> None:
    said = edgeml(served, "telemetry", "drift", "--slow").stdout
    assert "nothing was judged" in said
    assert "windows whose bundle this server does not have" in said
    assert json.loads(edgeml(served, "telemetry", "drift", "--slow", "--json").stdout)["groups"] == 0


def test_slow_drift_is_a_line_with_direction_and_beginning(capsys: pytest.CaptureFixture[str]) -> None:
    one = {
        "group": {"model": "kws", "release": 8, "reference": "ab", "name": "pi-1"},
        "feature": "image.mean",
        "direction": "up",
        "since": 1e9,
        "at": 1e9 + 86400,
        "lasts": True,
    }
    counts = {
        "groups": 3,
        "false_alarms_at_most": 0.0012,
        "windows_left_aside": 7,
        "windows_without_reference": 0,
    }
    print_slow_drift({"answers": [one], "found": 2, **counts})
    said = capsys.readouterr().out
    assert re.search(r"kws/8 pi-1 +image\.mean +up +2001-09-", said)
    assert "and 1 more" in said
    assert "groups 3; false alarms if nothing drifts: 0.0012 at most" in said
    assert "windows of more groups, left aside: 7" in said


def test_a_metric_that_there_is_not_is_no_empty_answer() -> None:
    done = CliRunner().invoke(
        telemetry, ["quantile", "--metric", "latency", "--server", "http://127.0.0.1:9"]
    )
    assert done.exit_code == 2
    assert "'postprocess'" in done.output
