"""QEMU's control socket, against a server that says what QEMU 7.2 says."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from edgeml_devices.emulator.machine.qmp import SOCKET, open_qmp

from edgeml.errors import EngineError

GREETING = (
    b'{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": "Debian"}, '
    b'"capabilities": ["oob"]}}\r\n'
)
STOP = b'{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "STOP"}\r\n'
ANSWERS = {
    "qmp_capabilities": b'{"return": {}}\r\n',
    "stop": STOP + b'{"return": {}}\r\n',
    "query-status": b'{"return": {"running": false, "singlestep": false, "status": "paused"}}\r\n',
    "set_link": b'{"error": {"class": "DeviceNotFound", "desc": "Device \'n9\' not found"}}\r\n',
    "quit": b"",
    "human-monitor-command": b'{"return": "VLAN -1 (network):\\r\\n"}\r\n',
}

Serve = Callable[..., Path]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Give a function that starts a server in a folder; what it heard is in ``heard.json`` there."""
    listener = socket.socket(socket.AF_UNIX)
    threads: list[threading.Thread] = []

    def start(greeting: bytes = GREETING, folder: Path = tmp_path) -> Path:
        handle = f"/proc/self/fd/{_open_folder(folder)}/{SOCKET}"
        listener.bind(handle)
        listener.listen()
        threads.append(threading.Thread(target=_serve, args=(listener, greeting, folder)))
        threads[0].start()
        return folder

    yield start
    for thread in threads:
        thread.join(60)
    listener.close()


def _open_folder(folder: Path) -> int:
    return os.open(folder, os.O_PATH | os.O_DIRECTORY)


def _serve(listener: socket.socket, greeting: bytes, folder: Path) -> None:
    connection, _ = listener.accept()
    heard = []
    with connection, connection.makefile("rb") as lines:
        connection.sendall(greeting)
        for line in lines:
            heard.append(json.loads(line))
            answer = ANSWERS[heard[-1]["execute"]]
            if not answer:
                break
            connection.sendall(answer)
    (folder / "heard.json").write_text(json.dumps(heard))


def test_capabilities_are_negotiated_and_events_passed_over(serve: Serve) -> None:
    with open_qmp(serve()) as qmp:
        assert qmp.execute("stop") == {}
        assert qmp.execute("query-status")["status"] == "paused"


def test_arguments_and_monitor_lines_are_sent_as_qemu_reads_them(serve: Serve, tmp_path: Path) -> None:
    with open_qmp(serve()) as qmp:
        assert qmp.monitor("info usernet").startswith("VLAN")
        with pytest.raises(EngineError, match=r"QEMU refuses set_link: Device 'n9' not found"):
            qmp.execute("set_link", {"name": "n9", "up": False})
    _wait_for(tmp_path / "heard.json")
    assert json.loads((tmp_path / "heard.json").read_text()) == [
        {"execute": "qmp_capabilities"},
        {"execute": "human-monitor-command", "arguments": {"command-line": "info usernet"}},
        {"execute": "set_link", "arguments": {"name": "n9", "up": False}},
    ]


def _wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.01)


def test_a_qemu_that_ends_is_said_so(serve: Serve) -> None:
    with open_qmp(serve()) as qmp, pytest.raises(EngineError, match="QEMU has ended"):
        qmp.execute("quit")


@pytest.mark.parametrize("greeting", [b"SSH-2.0-dropbear\r\n", b'{"return": {}}\r\n', b"[]\r\n"])
def test_what_is_no_qemu_is_said_so(serve: Serve, greeting: bytes) -> None:
    with pytest.raises(EngineError, match="not QEMU's control socket"), open_qmp(serve(greeting)):
        pass


def test_a_machine_without_a_socket_is_an_error_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=f"{tmp_path.name}: QEMU cannot be reached"), open_qmp(tmp_path):
        pass


def test_a_silent_socket_is_given_up(serve: Serve) -> None:
    with pytest.raises(EngineError, match="timed out"), open_qmp(serve(greeting=b""), timeout_s=0.1):
        pass


def test_a_folder_with_a_long_path_is_reached(serve: Serve, tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    with open_qmp(serve(folder=folder)) as qmp:
        assert qmp.execute("query-status")["running"] is False
