"""The commands about machines, with processes in QEMU's place."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
from click.testing import CliRunner, Result
from edgeml_devices.emulator import tools
from edgeml_devices.emulator.machine import state
from edgeml_devices.emulator.machine.addresses import Addresses
from edgeml_devices.emulator.machine.launch import Setup
from edgeml_devices.emulator.machine.machine import Machine
from edgeml_devices.emulator.machine.start_cli import stay
from edgeml_devices.emulator.machine.terminal import LEAVE

from edgeml.cli import main
from tests.unit.devices.emulator.conftest import BOARD, RECORD, run
from tests.waiting import eventually

pytestmark = pytest.mark.usefixtures("cache")


def _emulate(*words: str) -> Result:
    return CliRunner().invoke(main, ["emulate", *words])


def test_ps_says_what_runs(machine: Path) -> None:
    lines = _emulate("ps").stdout.splitlines()
    assert lines[0].split() == ["machine", "board", "state", "ends", "memory", "since", "ssh"]
    assert lines[1].split()[:6] == [BOARD, BOARD, "on", "with", "its", "command"]
    state.kill(machine)
    (found,) = json.loads(_emulate("ps", "--json").stdout)["machines"]
    assert (found["name"], found["running"], found["condition"]) == (BOARD, False, "off")
    assert found["ports"]["ssh"] == RECORD.ports.ssh


def test_ps_of_none_says_how_to_start_one() -> None:
    assert _emulate("ps").stdout == "no machines: edgeml emulate raspberry-pi-4\n"


def test_stop_ends_a_machine_and_removes_it(machine: Path) -> None:
    assert json.loads(_emulate("stop", BOARD, "--json").stdout)["stopped"] == [BOARD]
    assert not machine.exists()
    assert _emulate("stop", "--all").stdout == "ended: none was there\n"


def test_a_machine_whose_record_cannot_be_read_is_named_and_only_stop_ends_it(machine: Path) -> None:
    (machine / "machine.json").write_text("{")
    for words in (("ps",), ("power-cut", BOARD), ("ssh", BOARD, "true")):
        assert f"the machine.json of {BOARD} cannot be read" in _emulate(*words).stderr
        assert state.is_running(machine)
    assert _emulate("stop", BOARD).stdout == f"ended: {BOARD}\n"
    assert not machine.exists()


def test_stop_of_a_machine_that_is_not_there_names_those_that_are(machine: Path) -> None:
    done = _emulate("stop", "other")
    assert done.exit_code == 2
    assert f"no machine 'other'; there are: {machine.name}" in done.stderr
    assert "--all" in _emulate("stop").stderr


def test_a_power_cut_says_how_to_go_on(machine: Path) -> None:
    assert f"edgeml emulate restart {BOARD}" in _emulate("power-cut", BOARD).stdout
    assert not state.is_running(machine)
    assert machine.exists()


def test_clean_ends_what_a_killed_command_left(cache: Path) -> None:
    folder, owner = state.new_folder(BOARD)
    process = run(folder)
    owner.close()
    assert json.loads(_emulate("clean", "--json").stdout)["machines"] == [BOARD]
    assert process.wait(60) == -9
    assert not folder.exists()


@pytest.mark.parametrize("words", [("slow",), ("on", "--delay-ms", "5"), ("off", "--loss-percent", "2")])
def test_limits_go_with_a_slow_network(words: tuple[str, ...]) -> None:
    done = _emulate("network", BOARD, *words)
    assert done.exit_code == 2
    assert "go with slow" in done.stderr


def test_a_word_that_is_neither_command_nor_board_lists_the_boards() -> None:
    done = _emulate("raspberry-pi-9")
    assert done.exit_code == 2
    assert "Boards are: raspberry-pi-zero-2w, raspberry-pi-3b-plus" in done.stderr


@pytest.mark.parametrize(
    ("word", "meant"),
    [("raspberrypi4", "raspberry-pi-4"), ("raspberry-pi4", "raspberry-pi-4"), ("powercut", "power-cut")],
)
def test_a_word_that_is_nearly_one_is_guessed(word: str, meant: str) -> None:
    assert f"did you mean {meant}?" in _emulate(word).stderr


def test_who_has_nothing_yet_is_told_all_programs_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(tools, "_SYSTEM_FOLDERS", ())
    done = _emulate(BOARD)
    assert done.exit_code == 1
    for package in ("qemu-system-arm", "qemu-utils", "openssh-client", "fakeroot", "e2fsprogs"):
        assert f" {package}" in done.stderr


@pytest.mark.parametrize("name", ["my pi", BOARD])
def test_a_name_that_no_machine_can_have_is_refused_before_an_image_is_built(
    name: str, machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(machine))  # nothing can be built here
    done = _emulate(BOARD, "--name", name)
    assert done.exit_code == 2
    assert f"machine {name!r} already" in done.stderr or "cannot be the name" in done.stderr


def test_json_of_a_machine_in_the_foreground_is_refused() -> None:
    done = _emulate(BOARD, "--json")
    assert done.exit_code == 2
    assert "--json goes with --detach" in done.stderr


def test_the_foreground_says_the_ports_of_the_new_start_and_not_those_of_the_one_before(
    cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, owner = state.new_folder(BOARD)
    processes = [run(folder)]
    machine = Machine(cast("Setup", None), folder, RECORD)
    again = replace(RECORD, ports=Addresses(11, 12, 13, 14), started_s=2.0)
    said = ""

    def until_said(text: str) -> None:
        def has_come() -> bool:
            nonlocal said
            said += capsys.readouterr().out
            return text in said

        eventually(has_come, text)

    def others() -> None:
        until_said("is up")
        state.kill(folder)
        until_said("is off")
        processes.append(run(folder, again, said_after_s=0.7))
        until_said("127.0.0.1:11?")
        state.end(folder)

    other = threading.Thread(target=others)
    other.start()
    stay(machine)
    other.join(120)
    owner.close()
    for process in processes:
        process.wait()
    said += capsys.readouterr().out
    assert said.count("is up") == 2
    assert said.count("127.0.0.1:1?") == 1
    assert said.index("is off") < said.index("127.0.0.1:11?") < said.index("has ended")


def test_a_board_under_nohup_stays_when_its_terminal_is_closed(machine: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    (machine / "machine.json").unlink()  # it is gone
    stay(Machine(cast("Setup", None), machine, RECORD))
    assert signal.signal(signal.SIGHUP, before) is signal.SIG_IGN


ATTACHED = """
import sys
from edgeml_devices.emulator.machine.terminal import attach_terminal
attach_terminal(int(sys.argv[1]), "here")
"""


def test_a_console_shows_the_line_and_leaves_with_its_key() -> None:
    import os
    import pty

    with socket.create_server(("127.0.0.1", 0)) as server:
        heard = b""

        def serve() -> None:
            nonlocal heard
            line, _ = server.accept()
            with line:
                line.sendall(b"login: ")
                while part := line.recv(100):
                    heard += part

        board = threading.Thread(target=serve)
        board.start()
        ours, theirs = pty.openpty()
        argv = [sys.executable, "-c", ATTACHED, str(server.getsockname()[1])]
        process = subprocess.Popen(argv, stdin=theirs, stdout=theirs)
        os.close(theirs)
        shown = b""
        while b"login: " not in shown:
            shown += os.read(ours, 100)
        os.write(ours, b"root\x03" + LEAVE + b"not sent")
        assert process.wait(120) == 0
        board.join(60)
        os.close(ours)
    assert heard == b"\rroot\x03"  # Ctrl-C is the machine's
