"""Which workers can be used, and what they are made of."""

from __future__ import annotations

import ast
import json
import re
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from edgeml_converters.cli.workers import workers
from edgeml_converters.workers.catalogue import WORKERS, environment_python, folder, interpreter, pins, status
from edgeml_converters.workers.install import install, remove
from edgeml_converters.workers.run import RUNNER

from edgeml.errors import UsageError, WorkerMissingError

PIN = re.compile(r"^[A-Za-z0-9._-]+==[A-Za-z0-9.]+$")


@pytest.fixture(autouse=True)
def empty_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "workers"
    monkeypatch.setenv("EDGEML_WORKERS_DIR", str(place))
    for name in WORKERS:
        monkeypatch.delenv(f"EDGEML_WORKER_{name.upper()}", raising=False)
    return place


@pytest.mark.parametrize("name", WORKERS)
def test_every_package_of_a_worker_is_pinned(name: str) -> None:
    lines = pins(name).splitlines()
    assert lines
    assert [line for line in lines if not PIN.match(line)] == []


@pytest.mark.parametrize("name", WORKERS)
def test_a_workers_script_imports_of_edgeml_what_the_workers_share(name: str) -> None:
    script = (folder(name) / "worker.py").read_text(encoding="utf-8")
    assert {module for module in imported(script) if module.startswith("edgeml")} == {"edgeml_worker"}


def test_what_the_workers_share_stands_alone() -> None:
    script = RUNNER.with_name("shared") / "edgeml_worker.py"
    foreign = imported(script.read_text(encoding="utf-8")) - sys.stdlib_module_names
    assert foreign == {"h5py", "numpy"}
    assert [one.name for one in script.parent.glob("*.py")] == [script.name]


def imported(script: str) -> set[str]:
    """Give the top names of the modules that a script imports anywhere."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(script)):
        if isinstance(node, ast.Import):
            found |= {name.name.partition(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.partition(".")[0])
    return found


def test_a_worker_that_is_not_there_says_how_to_get_it() -> None:
    assert status("onnx2tf").state == "missing"
    with pytest.raises(WorkerMissingError, match="edgeml workers install onnx2tf"):
        interpreter("onnx2tf")


def test_an_unknown_worker_names_the_known_ones() -> None:
    with pytest.raises(UsageError, match="known: tensorflow, torch, keras, onnx2tf"):
        status("caffe")


def test_an_existing_interpreter_serves_when_a_variable_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEML_WORKER_TORCH", sys.executable)
    assert status("torch").state == "configured"
    assert interpreter("torch") == Path(sys.executable)


def test_a_variable_that_names_no_program_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEML_WORKER_TORCH", "/no/such/python")
    assert not status("torch").usable
    with pytest.raises(WorkerMissingError, match="EDGEML_WORKER_TORCH names /no/such/python"):
        interpreter("torch")


def test_an_environment_with_other_pins_is_outdated(empty_place: Path) -> None:
    python = environment_python(empty_place / "torch")
    python.parent.mkdir(parents=True)
    python.touch()
    (empty_place / "torch" / "pins.txt").write_text("torch==1.0\n", encoding="utf-8")
    assert status("torch").state == "outdated"
    with pytest.raises(WorkerMissingError, match="other versions than this edgeml pins"):
        interpreter("torch")


def test_removing_says_whether_there_was_something(empty_place: Path) -> None:
    assert remove("torch") is False
    (empty_place / "torch" / "bin").mkdir(parents=True)
    assert remove("torch") is True
    assert list(empty_place.iterdir()) == []


def test_the_list_for_machines_has_a_row_for_each_worker() -> None:
    result = CliRunner().invoke(workers, ["list", "--json"])
    found = json.loads(result.output)
    assert found["schema"] == 1
    assert [row["name"] for row in found["workers"]] == list(WORKERS)
    assert {row["state"] for row in found["workers"]} <= {"missing", "importable"}


def test_installing_what_is_there_already_does_nothing(
    empty_place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = environment_python(empty_place / "torch")
    python.parent.mkdir(parents=True)
    python.touch()
    (empty_place / "torch" / "pins.txt").write_text(pins("torch"), encoding="utf-8")
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    assert install("torch") == empty_place / "torch"
