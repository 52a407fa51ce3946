"""What ``edgeml agent status`` says of drift."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from edgeml.cli import main
from edgeml.telemetry.cusum import CusumState
from edgeml.telemetry.drift_file import DRIFT_FILE, Finding, ModelDrift, write_drift

AT = 1_800_000_000.0
CALM = ModelDrift("kws", 1, "0" * 16, judged=9, at=AT, seconds=3600, values=57_480, level=1e-4)
FOUND = Finding("image.mean", 1790, 1e-9, "w1", 0.681)
SUMS = {"image.std": CusumState((0.0, 20.0, 0.0, 20.0), (AT, AT - 60, AT, math.nan))}


@pytest.fixture(name="home")
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGEML_HOME", str(tmp_path))
    return tmp_path


def lines() -> list[str]:
    done = CliRunner().invoke(main, ["agent", "status"])
    assert done.exit_code == 0, done.output
    return [line for line in done.stdout.splitlines() if line.startswith("drift: ")]


def shown() -> Any:
    return json.loads(CliRunner().invoke(main, ["agent", "status", "--json"]).stdout)["drift"]


def test_each_model_has_a_line_of_the_release_that_was_judged_last(home: Path) -> None:
    write_drift(
        home,
        (
            replace(CALM, release=9, at=AT - 300),
            replace(CALM, release=8),
            ModelDrift("door", 3, "1" * 16, 2, None, 20, 1790, 1e-4, (FOUND,), SUMS),
            ModelDrift("new", 1, "2" * 16, values=12),
        ),
    )
    assert lines() == [
        (
            "drift: door 3: DRIFTED: image.mean w1 0.68, image.std slowly down since 2027-01-15 07:59:00, "
            "image.std slowly narrower; 1,790 values of 20 s"
        ),
        "drift: kws 8: none; 57,480 values of 60 min until 2027-01-15 08:00:00",
        "drift: new 1: not judged yet; 12 values, 30 are judged",
    ]


def test_json_has_every_release_without_the_sums(home: Path) -> None:
    write_drift(home, (CALM, replace(CALM, release=2, findings=(FOUND,), sums=SUMS)))
    one, other = shown()["models"]
    assert one == {
        "model": "kws",
        "release": 1,
        "reference": "0" * 16,
        "judged": 9,
        "at": AT,
        "seconds": 3600,
        "values": 57_480,
        "level": 1e-4,
        "findings": [],
        "slow": [],
    }
    assert other["findings"] == [{"name": "image.mean", "n": 1790, "q": 1e-9, "test": "w1", "effect": 0.681}]
    assert other["slow"] == [
        {"name": "image.std", "direction": "down", "since": AT - 60},
        {"name": "image.std", "direction": "narrower", "since": None},
    ]


def test_nothing_that_was_judged_is_null_and_a_damaged_file_is_told(home: Path) -> None:
    assert shown() is None
    assert lines() == []
    (home / DRIFT_FILE).write_text("{")
    assert list(shown()) == ["detail"]
    assert len(lines()) == 1
    assert "is not valid JSON" in lines()[0]


def test_control_characters_of_names_reach_no_terminal(home: Path) -> None:
    write_drift(home, (replace(CALM, findings=(replace(FOUND, name="a\x1b[2Jb"),)),))
    assert "\x1b[2J" not in lines()[0]
