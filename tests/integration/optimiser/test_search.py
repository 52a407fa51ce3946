"""``--scheme auto``: several runtimes at once, nothing judged twice, and what is known when it is stopped."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from click.testing import CliRunner
from edgeml_converters.convert import ConvertResult, convert
from edgeml_converters.search.crew import Crew, Share
from edgeml_converters.search.trials import Budget
from edgeml_converters.variants.rows import INTERRUPTED, Row

from edgeml.cli import main
from tests.integration.optimiser import broken_int8

RUNTIMES = ("onnxruntime", "openvino")


@pytest.fixture
def digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The arguments of a search over two runtimes, and caches that know nothing yet."""
    monkeypatch.setenv("EDGEML_CACHE_DIR", str(tmp_path / "cache"))
    return search_of_digits(tmp_path)


def search_of_digits(folder: Path) -> dict[str, Any]:
    samples, labels = broken_int8.held_out_digits()
    np.savez(folder / "held-out.npz", x=np.concatenate(samples), y=labels)
    np.save(folder / "calibration.npy", np.concatenate(broken_int8.calibration_digits()))
    return {
        "source": broken_int8.digits_onnx(folder),
        "schemes": "auto",
        "runtimes": RUNTIMES,
        "calibration": str(folder / "calibration.npy"),
        "evaluation": f"{folder / 'held-out.npz'}:x,y",
        "max_drop": 0.5,
        "measure": False,
    }


@dataclass(frozen=True)
class Search:
    """One that was made: from what, and what came of it."""

    arguments: dict[str, Any]
    cache: Path
    result: ConvertResult
    told: list[str]


@pytest.fixture(scope="module")
def first_search(tmp_path_factory: pytest.TempPathFactory) -> Search:
    folder = tmp_path_factory.mktemp("search")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEML_CACHE_DIR", str(folder / "cache"))
        arguments = search_of_digits(folder)
        result, told = searched(arguments, jobs=2)
    return Search(arguments, folder / "cache", result, told)


@pytest.fixture
def first(first_search: Search, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Search:
    """That search, and caches of the test's own that know it."""
    shutil.copytree(first_search.cache, tmp_path / "cache")
    monkeypatch.setenv("EDGEML_CACHE_DIR", str(tmp_path / "cache"))
    return first_search


def searched(digits: dict[str, Any], **options: Any) -> tuple[ConvertResult, list[str]]:
    told: list[str] = []
    return convert(**digits, progress=told.append, **options), told


def without_times(row: Row) -> Row:
    steps = tuple(replace(step, seconds=0.0, cached=False) for step in row.steps)
    return replace(row, artifact=None, golden=None, steps=steps)


def test_several_runtimes_at_once_give_what_one_after_the_other_does(digits: dict[str, Any]) -> None:
    in_turn, _ = searched(digits, jobs=1, use_cache=False)
    at_once, _ = searched(digits, jobs=2, use_cache=False)
    assert [without_times(row) for row in at_once.rows] == [without_times(row) for row in in_turn.rows]
    assert at_once.choices == in_turn.choices
    assert sorted(row.name for row in at_once.outcome.data.tried) == sorted(
        row.name for row in in_turn.outcome.data.tried
    )
    assert at_once.outcome.data.rankings == in_turn.outcome.data.rankings


@pytest.mark.parametrize("jobs", [1, 2])
def test_what_was_judged_before_is_not_judged_again(first: Search, jobs: int) -> None:
    assert any(line.endswith("evaluate openvino/int8_static") for line in first.told)
    assert any(line.startswith("openvino variant 1/") for line in first.told)
    again, told = searched(first.arguments, jobs=jobs)
    assert not [line for line in told if "evaluate" in line]
    assert [without_times(row) for row in again.rows] == [without_times(row) for row in first.result.rows]


def test_other_labels_are_judged_anew(first: Search, tmp_path: Path) -> None:
    with np.load(first.arguments["evaluation"].removesuffix(":x,y")) as file:
        np.savez(tmp_path / "others.npz", x=file["x"], y=(file["y"] + 1) % 10)
    second, _ = searched(first.arguments | {"evaluation": f"{tmp_path / 'others.npz'}:x,y"})
    assert first.result.rows[0].measured.accuracy != second.rows[0].measured.accuracy


def test_a_damaged_finding_is_found_out_anew(first: Search) -> None:
    kept = list((Path(os.environ["EDGEML_CACHE_DIR"]) / "judgements").rglob("*.*"))
    assert kept
    for one in kept:
        one.write_bytes(one.read_bytes()[:20])
    second, _ = searched(first.arguments)
    assert [without_times(row) for row in second.rows] == [without_times(row) for row in first.result.rows]


def test_a_process_that_dies_costs_the_rows_of_its_runtime_alone(digits: dict[str, Any]) -> None:
    told: list[str] = []

    def kill_openvino(doing: str) -> None:
        told.append(doing)
        if doing.startswith("openvino variant 1/"):
            for member in crew(os.getpid()):
                if "openvino" in chatter_file(member):
                    os.kill(member, signal.SIGKILL)

    result = convert(**digits, jobs=2, use_cache=False, progress=kill_openvino)
    statuses = {row.name: row.status for row in result.rows}
    assert len(statuses) == len(result.rows)
    assert statuses["onnxruntime-float32"] == "ok"
    assert statuses["openvino-float32"] == "failed"
    (lost,) = (row for row in result.rows if row.name == "openvino-float32")
    assert "its process ended with code -9" in lost.reason


def test_no_process_is_started_into_a_search_that_is_ended(tmp_path: Path) -> None:
    """One waits for its turn while the others are killed."""
    crew = Crew()
    crew.kill()
    share = Share((), cast("Any", None), Budget(60.0), tmp_path / "handed.pickle")
    assert "ended with code -9" in str(crew.work(share, print))


def test_processes_end_without_a_crash(digits: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Python aborted them behind their work, and with a core dump, where an error would have been told."""
    crews: list[Crew] = []
    work = Crew.work

    def watched(self: Crew, *arguments: Any) -> Any:
        crews.append(self)
        return work(self, *arguments)

    monkeypatch.setattr(Crew, "work", watched)
    searched(digits, jobs=2)
    assert {process.returncode for one in crews for process in one.processes} == {0}


def test_an_interrupted_search_keeps_what_it_knows_and_goes_on_from_there(
    digits: dict[str, Any], tmp_path: Path
) -> None:
    process = started(digits, tmp_path)
    until_told(process, lambda line: "int8" in line)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=180)
    assert process.returncode == 130, err
    found = json.loads(out)
    by_name = {row["name"]: row for row in found["variants"]}
    assert by_name["onnxruntime-float32"]["status"] == "ok"
    left = [name for name, row in by_name.items() if row["reason"] == INTERRUPTED]
    assert left
    assert [one["subject"] for one in found["findings"] if one["code"] == "search-interrupted"]
    assert Path(found["bundle"]).is_file()

    second = started(digits, tmp_path)
    out, err = second.communicate(timeout=300)
    assert second.returncode == 0, err
    assert "evaluate onnx/float32" not in err
    assert not [row for row in json.loads(out)["variants"] if row["reason"] == INTERRUPTED]


def test_the_second_interrupt_ends_the_measurements_of_what_was_made(
    digits: dict[str, Any], tmp_path: Path
) -> None:
    interrupted: list[str] = []

    def interrupt(doing: str) -> None:
        stage = "measurements" if doing.startswith("measure") else "trials" if "int8" in doing else ""
        if stage and stage not in interrupted:
            interrupted.append(stage)
            press_ctrl_c()

    with pytest.raises(KeyboardInterrupt):
        convert(**digits | {"measure": True}, jobs=2, output=tmp_path / "out.edgeml", progress=interrupt)
    assert interrupted == ["trials", "measurements"]
    assert not (tmp_path / "out.edgeml").exists()


def test_an_interrupt_when_all_was_handed_over_is_told_too(
    digits: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    all_handed_over = threading.Barrier(len(RUNTIMES), action=press_ctrl_c)
    work = Crew.work

    def late(self: Crew, *arguments: Any) -> Any:
        handed = work(self, *arguments)
        all_handed_over.wait(timeout=120)
        while not self.stopped:
            time.sleep(0.01)
        return handed

    monkeypatch.setattr(Crew, "work", late)
    result, _ = searched(digits, jobs=2)
    assert result.outcome.interrupted
    assert not [row for row in result.rows if row.reason == INTERRUPTED]
    assert [one for one in result.outcome.findings if one.code == "search-interrupted"]


def test_an_interrupted_search_ends_as_interrupted_where_a_target_got_nothing(
    first: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome = first.result.outcome
    (choice,) = outcome.choices
    nothing = replace(choice, variant=None, reason="no variant holds the gates; nearest is …", gated=True)
    result = replace(first.result, outcome=replace(outcome, choices=(nothing,), interrupted=True))
    monkeypatch.setattr("edgeml_converters.convert.convert", lambda *_, **__: result)
    done = CliRunner().invoke(main, ["convert", str(first.arguments["source"])])
    assert done.exit_code == 130
    assert f"{choice.target}: no variant holds the gates" in done.stdout


def press_ctrl_c() -> None:
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


def test_a_search_that_is_stopped_before_it_knows_anything_leaves_nothing(
    digits: dict[str, Any], tmp_path: Path
) -> None:
    process = started(digits, tmp_path)
    until_told(process, lambda line: "read the source" in line)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=180)
    assert process.returncode == 130
    assert not (tmp_path / "out.edgeml").exists()


def test_processes_end_with_the_one_that_started_them(digits: dict[str, Any], tmp_path: Path) -> None:
    process = started(digits, tmp_path)
    until_told(process, lambda line: "variant 1/" in line)
    members = crew(process.pid)
    assert members
    process.kill()
    process.communicate(timeout=180)
    deadline = time.monotonic() + 120
    while any(Path(f"/proc/{member}").exists() for member in members):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def started(digits: dict[str, Any], folder: Path) -> subprocess.Popen[str]:
    options = {
        "--calibration": digits["calibration"],
        "--evaluate": digits["evaluation"],
        "--scheme": "auto",
        "--max-drop": "0.5",
        "--jobs": "2",
        "-o": str(folder / "out.edgeml"),
    }
    arguments = [word for pair in options.items() for word in pair]
    arguments += [word for name in RUNTIMES for word in ("--runtime", name)]
    arguments += ["--no-measure", "--json"]
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "edgeml", "convert", str(digits["source"]), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def until_told(process: subprocess.Popen[str], wanted: Callable[[str], bool]) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        if wanted(line):
            return
    raise AssertionError("it ended before")


def crew(parent: int) -> list[int]:
    """List the processes that a search started."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
            owner = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if owner == parent and b"edgeml_converters.search.crew" in words:
            found.append(int(folder.name))
    return found


def chatter_file(process: int) -> str:
    return str(Path(f"/proc/{process}/fd/2").readlink())
