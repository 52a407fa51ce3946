"""A serial console beyond the contract: log-ins, ports, machines that lack something, what is left behind."""

from __future__ import annotations

import os
import pty
import shutil
import socket
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import serial.rfc2217
import serial.serialposix
from edgeml_devices.transports.serial import SerialTransport

from edgeml.errors import TransportError
from tests.integration.transports.serial_line import SerialLine
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from edgeml.transport import Progress

TOOLS = "sh cat cksum dd dmesg ls mkdir mktemp mv od rm rmdir setsid sha256sum sleep stty sync tail wc"


@pytest.fixture
def plug(tmp_path: Path) -> Iterator[Callable[..., SerialLine]]:
    lines: list[SerialLine] = []

    def make(**options: object) -> SerialLine:
        folder = tmp_path / f"port{len(lines)}"
        folder.mkdir()
        lines.append(SerialLine(folder, ["sh"], **options))
        return lines[-1]

    yield make
    for line in lines:
        line.close()


def test_a_log_in_without_a_user_says_how_to_give_one(plug):
    line = plug(user="root")
    with pytest.raises(TransportError, match=r"asks for a log-in; give it: \?user=NAME"):
        SerialTransport(line.url).connect()


def test_a_wrong_password_is_refused(plug, monkeypatch):
    monkeypatch.setenv("BOARD_PASSWORD", "wrong")
    line = plug(user="root", password="right")  # noqa: S106 - of a board made for the test
    with pytest.raises(TransportError, match="log-in of 'root' is refused"):
        SerialTransport(f"{line.url}?user=root&password_env=BOARD_PASSWORD").connect()


def test_the_console_is_left_as_it_was_found(plug, tmp_path, monkeypatch):
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    line = plug(user="root")
    with SerialTransport(f"{line.url}?user=root") as transport:
        transport.run(["true"], 20)
        assert list(folder.iterdir())
    with serial.Serial(str(line.port), timeout=30) as port:
        port.write(b"\n")
        assert port.read_until(b"login: ").endswith(b"login: "), "it is still logged in"
    assert list(folder.iterdir()) == []


def test_a_line_that_ends_leaves_nothing_on_the_machine(plug, tmp_path, monkeypatch):
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    line = plug()
    transport = SerialTransport(line.url)
    transport.connect()
    threading.Timer(0.3, line.restart).start()
    with pytest.raises(TransportError, match="lost"):
        transport.run(["sleep", "100"], 50)
    eventually(lambda: not list(folder.iterdir()))


def test_a_half_typed_command_and_a_running_program_are_no_obstacle(plug):
    line = plug()
    with serial.Serial(str(line.port), timeout=0.2) as port:
        port.write(b"sleep 100\necho 'half a quo")
        port.read(200)
    with SerialTransport(line.url) as transport:
        assert transport.run(["echo", "hello"], 20).stdout == b"hello\n"


def test_a_port_in_use_is_told(plug):
    line = plug()
    with SerialTransport(line.url), pytest.raises(TransportError, match="in use by another program"):
        SerialTransport(line.url).connect()


def test_a_console_on_which_nobody_answers_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr("edgeml_devices.transports.serial_console.CONNECT_TIMEOUT_S", 2.0)
    master, slave = pty.openpty()
    (tmp_path / "port").symlink_to(os.ttyname(slave))
    with pytest.raises(TransportError, match=r"no shell answers.*silent.*baud rate"):
        SerialTransport(f"serial://{tmp_path}/port").connect()
    os.close(master)
    os.close(slave)


def tools(folder: Path, *without: str) -> str:
    folder.mkdir()
    for name in TOOLS.split():
        if name not in without:
            (folder / name).symlink_to(str(shutil.which(name)))
    return str(folder)


def test_a_machine_without_base64_is_served_with_od_and_printf(plug, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", tools(tmp_path / "tools"))
    line = plug()
    (tmp_path / "here").write_bytes(bytes(range(256)) * 20)
    with SerialTransport(line.url) as transport:
        transport.put(tmp_path / "here", str(tmp_path / "there"))
        transport.get(str(tmp_path / "there"), tmp_path / "back")
    assert (tmp_path / "there").read_bytes() == (tmp_path / "back").read_bytes() == bytes(range(256)) * 20


def test_what_the_machine_lacks_is_named(plug, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", tools(tmp_path / "tools", "setsid", "dd"))
    line = plug()
    with pytest.raises(TransportError, match=r"lacks dd, setsid; install coreutils"):
        SerialTransport(line.url).connect()


def test_the_measured_rate_is_that_of_the_line(plug, tmp_path):
    line = plug(baud=115_200)
    (tmp_path / "here").write_bytes(os.urandom(30_000))
    seen: list[Progress] = []
    with SerialTransport(line.url) as transport:
        transport.on_progress(seen.append)
        begun = time.monotonic()
        transport.put(tmp_path / "here", str(tmp_path / "there"))
        least = 30_000 / (time.monotonic() - begun)
    assert least <= seen[-1].bytes_per_second < 115_200 / 10 * 3 / 4
    assert seen[-1].done_bytes == seen[-1].whole_bytes == 30_000


def test_pauses_after_lines_are_kept(plug, tmp_path):
    line = plug()
    (tmp_path / "here").write_bytes(os.urandom(3000))
    with SerialTransport(f"{line.url}?txdelay=3") as transport:
        begun = time.monotonic()
        transport.put(tmp_path / "here", str(tmp_path / "there"))
        assert time.monotonic() - begun > 3000 * 4 / 3 / 64 * 0.003
    assert (tmp_path / "there").read_bytes() == (tmp_path / "here").read_bytes()


class PtyPort(serial.serialposix.Serial):
    """A pseudo-terminal has no control lines."""

    cts = dsr = ri = cd = False

    def _update_rts_state(self) -> None: ...
    def _update_dtr_state(self) -> None: ...
    def _update_break_state(self) -> None: ...


@pytest.fixture
def rfc2217(plug) -> Iterator[int]:
    """A terminal server for one connection, by pyserial's own protocol code; gives its port."""
    port = PtyPort(os.path.realpath(plug().port), timeout=0.01)
    listener = socket.create_server(("127.0.0.1", 0))
    ended = threading.Event()

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            writer = type("Writer", (), {"write": staticmethod(connection.sendall)})
            manager = serial.rfc2217.PortManager(port, writer)

            def from_machine() -> None:
                while not ended.is_set():
                    if data := port.read(4096):
                        connection.sendall(b"".join(manager.escape(data)))

            reader = threading.Thread(target=from_machine)
            reader.start()
            while data := connection.recv(4096):
                port.write(b"".join(manager.filter(data)))
            ended.set()
            reader.join()

    server = threading.Thread(target=serve)
    server.start()
    yield listener.getsockname()[1]
    server.join()
    listener.close()
    port.close()


def test_rfc2217_is_a_port_like_others(rfc2217, tmp_path):
    (tmp_path / "here").write_bytes(bytes(range(256)) * 10)
    with SerialTransport(f"serial:rfc2217://127.0.0.1:{rfc2217}?baud=57600") as transport:
        transport.put(tmp_path / "here", str(tmp_path / "there"))
        assert transport.run(["cat", str(tmp_path / "there")], 20).stdout == bytes(range(256)) * 10
