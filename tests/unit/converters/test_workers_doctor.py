"""The doctor knows the workers."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path

import pytest
from click.testing import CliRunner
from edgeml_converters.cli.workers import workers
from edgeml_converters.workers.catalogue import WORKERS, status
from edgeml_converters.workers.doctor import doctor_checks

from edgeml.doctor import GROUP


@pytest.fixture(autouse=True)
def empty_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGEML_WORKERS_DIR", str(tmp_path))
    for name in WORKERS:
        monkeypatch.delenv(f"EDGEML_WORKER_{name.upper()}", raising=False)
    return tmp_path


def test_every_worker_is_looked_at_and_a_missing_one_comes_with_its_command() -> None:
    _, *checks = doctor_checks()
    found = {check.name: check for check in checks}

    assert set(found) == set(WORKERS)
    for name, check in found.items():
        assert check.status in {"ok", "missing"}
        assert check.remedy == ("" if check.status == "ok" else f"edgeml workers install {name}")


def test_where_workers_are_looked_for_comes_first(empty_home: Path) -> None:
    place, *_ = doctor_checks()

    assert (place.name, place.status) == ("workers_dir", "ok")
    assert place.detail == f"{empty_home} (set by EDGEML_WORKERS_DIR)"


def test_a_missing_worker_says_where_it_was_looked_for(empty_home: Path) -> None:
    found = status("torch")

    if found.state == "missing":
        assert found.reason == f"not installed in {empty_home}; workers_dir is set by EDGEML_WORKERS_DIR"


def test_the_list_shows_the_folder_and_who_set_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDGEML_WORKERS_DIR")
    (tmp_path / "edgeml.toml").write_text('workers_dir = "mine"\n')
    monkeypatch.chdir(tmp_path)

    shown = CliRunner().invoke(workers, ["list"]).output
    place = json.loads(CliRunner().invoke(workers, ["list", "--json"]).output)["workers_dir"]

    assert f"workers_dir: {tmp_path / 'mine'} (set in {tmp_path / 'edgeml.toml'})" in shown
    assert place == {"path": str(tmp_path / "mine"), "origin": f"set in {tmp_path / 'edgeml.toml'}"}


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
