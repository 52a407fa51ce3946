"""``edgeml emulate`` as a person calls it: a board in the foreground, and one that is left running."""

from __future__ import annotations

import json
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.emulator.built_images import shared_cache
from tests.waiting import eventually

pytestmark = pytest.mark.usefixtures("built_cache", "snapshot")
EDGEML = (sys.executable, "-m", "edgeml", "emulate")
BOARD = ("raspberry-pi-4", "--engine", "litert")


@pytest.fixture
def name() -> Iterator[str]:
    """Give a name of its own: the cache is shared."""
    name = f"test-{secrets.token_hex(4)}"
    yield name
    subprocess.run([*EDGEML, "stop", name], capture_output=True, check=False)


def _emulate(*words: str) -> str:
    done = subprocess.run([*EDGEML, *words], capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _names() -> set[str]:
    return {found["name"] for found in json.loads(_emulate("ps", "--json"))["machines"]}


def test_a_detached_board_is_there_until_it_is_stopped(name: str) -> None:
    started = json.loads(_emulate(*BOARD, "--name", name, "--detach", "--json"))["machine"]
    assert (started["name"], started["restored"], started["detached"]) == (name, True, True)
    assert name in _names()
    assert _emulate("ssh", name, "cat", "/proc/device-tree/model") == "Raspberry Pi 4 Model B Rev 1.1\0"

    _emulate("network", name, "slow", "--delay-ms", "20")
    assert "delay 20ms" in _emulate("ssh", name, "tc qdisc show")
    _emulate("ssh", name, "echo kept >/opt/file; sync")
    _emulate("power-cut", name)
    done = subprocess.run([*EDGEML, "ssh", name, "true"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (
        2,
        f"error: {name} is off; boot it on its disk: edgeml emulate restart {name}\n",
    )
    assert f"{name} is up, booted" in _emulate("restart", name)
    assert _emulate("ssh", name, "cat", "/opt/file") == "kept\n"
    assert _emulate("stop", name) == f"ended: {name}\n"
    assert name not in _names()


def test_a_board_in_the_foreground_ends_with_its_command(name: str) -> None:
    argv = [*EDGEML, *BOARD, "--name", name]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as command:
        assert command.stdout is not None
        assert command.stdout.readline() == f"{name} is up, from its snapshot\n"
        shown = "".join(command.stdout.readline() for _ in range(6))
        assert f"edgeml emulate ssh {name}\n" in shown
        assert "Ctrl-C ends it" in shown
        _emulate("power-cut", name)
        assert f"edgeml emulate restart {name}" in command.stdout.readline()
        command.send_signal(signal.SIGINT)
        assert command.wait(60) == 0
    assert name not in _names()


def test_a_board_whose_command_is_killed_ends_by_itself(name: str) -> None:
    argv = [*EDGEML, *BOARD, "--name", name]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as command:
        assert command.stdout is not None
        command.stdout.readline()
        folder = shared_cache() / "emulator/machines" / name
        assert folder.exists()
        command.kill()
        command.wait(60)
    eventually(lambda: not folder.exists(), "the machine is gone")


def test_a_board_that_two_restart_is_up_for_both(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    _emulate(*BOARD, "--name", name, "--detach")
    before = _ports(name)
    argv = [*EDGEML, "restart", name]
    first = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    eventually(lambda: _ports(name) != before, "the first one has started it again")
    assert f"{name} is up, booted" in _emulate("restart", name)
    shown, _ = first.communicate(timeout=600)
    assert first.returncode == 0, shown
    assert f"127.0.0.1:{_ports(name)['ssh']}?" in shown
    assert _emulate("ssh", name, "echo up") == "up\n"
    assert list(tmp_path.glob("edgeml-ssh-*")) == []


def _ports(name: str) -> dict[str, int]:
    (found,) = (one for one in json.loads(_emulate("ps", "--json"))["machines"] if one["name"] == name)
    ports: dict[str, int] = found["ports"]
    return ports
