"""What a deploy looks like on a terminal."""

from __future__ import annotations

import io

import pytest
from edgeml_devices.install.device import InstalledOnDevice
from edgeml_devices.install.show import Board, as_table, print_installed, print_outcomes
from edgeml_devices.install.words import Outcome, Standing, outcome_to_json
from edgeml_devices.messages import Reason, Result, State
from rich.console import Console


def test_each_device_has_a_line_with_state_bytes_and_rate():
    board = Board(["ssh://pi@a", "ssh://pi@b"])
    board.update("ssh://pi@b", Standing(State.FETCHING, "sending", 150_000, 300_000, 9_000.0))
    console = Console(file=io.StringIO(), width=100)
    console.print(as_table(board.standings()))
    lines = [line.split() for line in console.file.getvalue().splitlines()]
    assert lines[1] == ["ssh://pi@a", "waiting"]
    assert lines[2] == ["ssh://pi@b", "FETCHING", "150", "kB", "300", "kB", "9.0", "kB/s", "sending"]


def test_outcomes_are_a_table_with_the_reasons_below(capsys: pytest.CaptureFixture[str]):
    well = Outcome("a", Result.SUCCESSFUL, release=2, variant="v", running=2, previous=1, verified="selftest")
    bad = Outcome("b", Result.FAILED_ROLLBACK_COMPLETE, Reason.HEALTH_CHECK, "ended with 1", 2, "v", 1, None)
    print_outcomes([well, bad])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[:6] == ["a", "committed", "2", "1", "v", "selftest"]
    assert lines[2].split()[:6] == ["b", "rolled", "back", "1", "–", "v"]
    assert lines[3] == "b  health_check: ended with 1"


def test_a_device_that_is_emulated_is_called_so(capsys: pytest.CaptureFixture[str]):
    print_outcomes([Outcome("a", Result.SUCCESSFUL), Outcome("b", Result.SUCCESSFUL, emulated=True)])
    said = capsys.readouterr().out.splitlines()
    assert said[3:] == ["b  emulated: correctness, memory and protocol only"]


@pytest.mark.parametrize(
    ("reason", "is_gate"), [(Reason.PARITY, True), (Reason.HEALTH_CHECK, True), (Reason.DISK_FULL, False)]
)
def test_a_gate_that_was_not_met_is_told_from_a_failure(reason: Reason, is_gate: bool):
    assert Outcome("a", Result.FAILED_NO_STATE_CHANGE, reason).failed_a_gate == is_gate
    assert not Outcome("a", Result.SUCCESSFUL).failed_a_gate


def test_an_outcome_is_json_of_plain_words():
    outcome = Outcome("a", Result.FAILED_NO_STATE_CHANGE, Reason.BUSY, "x", 3, measured={"p50_ms": 1.5})
    assert outcome_to_json(outcome) == {
        "url": "a",
        "result": "FAILED_NO_STATE_CHANGE",
        "reason": "busy",
        "detail": "x",
        "release": 3,
        "variant": None,
        "running": None,
        "previous": None,
        "verified": "nothing",
        "measured": {"p50_ms": 1.5},
        "emulated": False,
        "sent_bytes": 0,
        "duration_s": 0.0,
    }


def test_what_is_installed_is_a_table_and_what_cannot_be_reached_a_line(capsys: pytest.CaptureFixture[str]):
    kws = InstalledOnDevice("kws", 2, 1, ("litert-int8_static",), "aa", State.FAILED, 3, 2, 1, "", "parity")
    print_installed({"a": (kws,), "b": (), "c": "no route"})
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["a", "kws", "2", "1", "litert-int8_static", "3:", "FAILED", "(parity)"]
    assert lines[2:] == ["b  no model is installed", "c  no route"]


def test_what_a_device_says_cannot_write_to_the_terminal(capsys: pytest.CaptureFixture[str]):
    said = "a\x1b[2Jb\r"
    print_outcomes([Outcome("a", Result.FAILED_NO_STATE_CHANGE, Reason.BUSY, said, variant=said)])
    print_installed({"a": (InstalledOnDevice(said, 2, 1, (said,), "aa", State.FAILED, 3, 2, 1, "", said),)})
    print_installed({"a": said})
    console = Console(file=io.StringIO(), width=100)
    console.print(as_table({"a": Standing(State.FETCHING, said)}))
    shown = capsys.readouterr().out + console.file.getvalue()
    assert shown.count("a�[2Jb�") == 7
    assert not {"\x1b", "\r"} & set(shown)
