"""What a machine is at, by what QEMU says of it."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from edgeml_devices.emulator.machine import state
from edgeml_devices.emulator.machine.condition import UNPLUGGED, condition, is_attached, unreachable
from edgeml_devices.emulator.machine.qmp import SOCKET


@contextmanager
def _qemu(folder: Path, status: str = "running", console: str = "") -> Iterator[None]:
    """Serve a control socket that says this, to one client after the other."""
    chardevs = [
        {"label": "console", "filename": console},
        {"label": "serial", "filename": "disconnected:tcp"},
    ]
    handle = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"/proc/self/fd/{handle}/{SOCKET}")
        listener.listen()
        server = threading.Thread(
            target=_serve, args=(listener, {"query-status": {"status": status}, "query-chardev": chardevs})
        )
        server.start()
        yield
        listener.shutdown(socket.SHUT_RDWR)
        server.join(10)
    os.close(handle)


def _serve(listener: socket.socket, answers: Mapping[str, object]) -> None:
    while True:
        try:
            client, _ = listener.accept()
        except OSError:
            return
        with client, client.makefile("rwb") as lines:
            lines.write(b'{"QMP": {}}\n')
            lines.flush()
            for line in lines:
                asked = json.loads(line)["execute"]
                lines.write(json.dumps({"return": answers.get(asked, {})}).encode() + b"\n")
                lines.flush()


@pytest.mark.parametrize(
    ("status", "expected", "hint"),
    [
        ("running", "on", None),
        ("paused", "hangs", "edgeml emulate hang raspberry-pi-4 --end"),
        ("io-error", "disk_full", "the disk of this machine is full; make room"),
    ],
)
def test_what_qemu_says_is_what_a_person_can_act_on(
    machine: Path, status: str, expected: str, hint: str | None
) -> None:
    with _qemu(machine, status):
        assert condition(machine) == expected
        why = unreachable(machine)
    assert (why is None) if hint is None else (why is not None and hint in why)


def test_a_pulled_cable_matters_to_the_network_alone(machine: Path) -> None:
    (machine / UNPLUGGED).touch()
    with _qemu(machine, "running"):
        assert condition(machine) == "unplugged"
        assert "edgeml emulate network raspberry-pi-4 on" in str(unreachable(machine))
        assert unreachable(machine, by_network=False) is None


def test_a_machine_without_power_is_off_and_one_that_says_nothing_is_on(machine: Path) -> None:
    assert condition(machine) == "on"
    state.kill(machine)
    assert condition(machine) == "off"
    assert "edgeml emulate restart raspberry-pi-4" in str(unreachable(machine))


@pytest.mark.parametrize(
    ("console", "expected"),
    [
        ("disconnected:tcp:127.0.0.1:4444,server=on", False),
        ("tcp:127.0.0.1:4444,server=on <-> 127.0.0.1:55555", True),
    ],
)
def test_a_line_that_somebody_is_attached_to_is_told(machine: Path, console: str, *, expected: bool) -> None:
    with _qemu(machine, console=console):
        assert is_attached(machine, "console") is expected
        assert not is_attached(machine, "serial")
    assert not is_attached(machine, "console")  # nobody says
