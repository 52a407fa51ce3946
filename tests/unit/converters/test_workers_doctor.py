"""The doctor knows the workers."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import pytest
from edgeml_converters.workers.catalogue import WORKERS
from edgeml_converters.workers.doctor import doctor_checks

from edgeml.doctor import GROUP


@pytest.fixture(autouse=True)
def empty_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGEML_WORKERS_DIR", str(tmp_path))
    for name in WORKERS:
        monkeypatch.delenv(f"EDGEML_WORKER_{name.upper()}", raising=False)
    return tmp_path


def test_every_worker_is_looked_at_and_a_missing_one_comes_with_its_command() -> None:
    found = {check.name: check for check in doctor_checks()}

    assert set(found) == set(WORKERS)
    for name, check in found.items():
        assert check.status in {"ok", "missing"}
        assert check.remedy == ("" if check.status == "ok" else f"edgeml workers install {name}")


def test_a_variable_that_names_no_program_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEML_WORKER_TORCH", "/no/such/python")

    (check,) = [check for check in doctor_checks() if check.name == "torch"]

    assert check.status == "broken"
    assert "EDGEML_WORKER_TORCH names /no/such/python" in check.detail


def test_an_environment_of_other_pins_is_broken_and_can_be_made_anew(empty_home: Path) -> None:
    python = empty_home / "torch" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to("/bin/true")
    (empty_home / "torch" / "pins.txt").write_text("torch==0.1")

    (check,) = [check for check in doctor_checks() if check.name == "torch"]

    assert (check.status, check.remedy) == ("broken", "edgeml workers install torch")


def test_the_doctor_finds_them_by_entry_point() -> None:
    (entry,) = metadata.entry_points(group=GROUP, name="workers")

    assert entry.load() is doctor_checks
