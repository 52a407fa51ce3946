"""Receivers that hang, drip, fork and shout: others hear of alerts, and nobody learns a secret."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from edgeml.errors import UsageError
from tests.integration.server_process import ServerProcess

SECRET = "s3cr3t-Zq9"  # noqa: S105 - nobody's
NOISY = """#!/bin/sh
trap '' TERM
(trap '' TERM; echo $$ > {folder}/noisy.pid; exec sleep 1000) &
exec yes
"""


class Listener:
    """Takes connections, and does with each what it was told."""

    def __init__(self, serve: Callable[[socket.socket], None]) -> None:
        self._serve = serve
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.taken = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                self.taken += 1
                threading.Thread(target=self._handle, args=(connection,), daemon=True).start()

    def _handle(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            self._serve(connection)

    def close(self) -> None:
        self._socket.close()


def hang(connection: socket.socket) -> None:
    while connection.recv(65536):
        pass


def drip(connection: socket.socket) -> None:
    connection.recv(65536)
    connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
    while True:
        connection.sendall(b"x")
        time.sleep(0.2)


def pour(connection: socket.socket) -> None:
    """An answer without an end."""
    connection.recv(65536)
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        connection.sendall(b"x" * 65536)


def answer(status: str) -> Callable[[socket.socket], None]:
    def serve(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode())

    return serve


@pytest.fixture
def listeners() -> Iterator[dict[str, Listener]]:
    behaviours = {
        "hangs": hang,
        "drips": drip,
        "pours": pour,
        "moved": answer("302 Found\r\nLocation: http://127.0.0.1:1/"),
        "broken": answer("500 No"),
        "good": answer("200 OK"),
    }
    made = {name: Listener(serve) for name, serve in behaviours.items()}
    yield made
    for one in made.values():
        one.close()


@pytest.fixture
def files(tmp_path: Path, listeners: dict[str, Listener]) -> list[str]:
    """A rule that fires at once, and everybody who should hear of it: the good one last."""
    rule = {"alert": "Idle", "expr": 'calls_per_second{window="1h"} < 1'}
    (tmp_path / "rules.yml").write_text(json.dumps({"groups": [{"name": "g", "rules": [rule]}]}))
    (tmp_path / "two-lines").write_text(f"{SECRET}\n{SECRET}\n")
    noisy = tmp_path / "noisy"
    noisy.write_text(NOISY.format(folder=tmp_path))
    noisy.chmod(0o700)
    hooks = [
        f'{{name = "{name}", webhook = "http://u:{SECRET}@127.0.0.1:{one.port}/{SECRET}?t={SECRET}"}}'
        for name, one in listeners.items()
        if name != "good"
    ]
    mail = f'to = ["a@b"], sender = "c@d", server = "smtp://127.0.0.1:{listeners["hangs"].port}"'
    rest = [
        f'{{name = "unreachable", webhook = "http://127.0.0.1:1/{SECRET}"}}',
        f'{{name = "nobody", webhook = "http://no-such-host.invalid/{SECRET}"}}',
        f'{{name = "header", webhook = "http://127.0.0.1:1/", token_file = "{tmp_path}/two-lines"}}',
        f'{{name = "mail", email = {{{mail}}}}}',
        f'{{name = "noisy", command = ["{noisy}"]}}',
        f'{{name = "good", webhook = "http://127.0.0.1:{listeners["good"].port}/"}}',
    ]
    (tmp_path / "receivers.toml").write_text(f"receivers = [{', '.join([*hooks, *rest])}]\n")
    return [
        "--alert-rules",
        str(tmp_path / "rules.yml"),
        "--alert-receivers",
        str(tmp_path / "receivers.toml"),
    ]


def until(condition: Callable[[], bool], timeout_s: float = 120.0) -> bool:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def test_others_hear_and_no_secret_is_told(
    database_url: str, tmp_path: Path, files: list[str], listeners: dict[str, Listener]
) -> None:
    receivers = tmp_path / "receivers.toml"
    receivers.write_text(receivers.read_text().replace("{name", "{timeout_s = 4, name"))
    with ServerProcess(tmp_path / "server", database_url, options=files) as server:
        assert until(lambda: listeners["good"].taken > 0)

        def undelivered() -> set[str]:
            return {one["receiver"] for one in server.call("GET", "/v1/alerts")[1]["undelivered"]}

        failing = {"hangs", "drips", "moved", "broken", "unreachable", "nobody", "header", "mail", "noisy"}
        assert until(lambda: undelivered() >= failing), undelivered()
        told = json.dumps(server.call("GET", "/v1/alerts")[1])
        # a body without an end is a success all the same
        assert undelivered() == failing
        child = int((tmp_path / "noisy.pid").read_text())
        assert until(lambda: not Path(f"/proc/{child}").exists())
        assert memory_bytes(server.pid) < 600 << 20
        assert listeners["good"].taken == 1
    assert SECRET not in told
    assert SECRET not in "\n".join(server.output)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_server_that_ends_while_it_delivers_tells_what_was_delivered_no_second_time(
    database_url: str, tmp_path: Path, files: list[str], listeners: dict[str, Listener], number: int
) -> None:
    server = ServerProcess(tmp_path / "server", database_url, options=files)
    with server:
        assert until(lambda: (tmp_path / "noisy.pid").exists() and listeners["good"].taken > 0)
        # its outcome is noted right after the answer
        time.sleep(1)
        begun = time.monotonic()
        if number == signal.SIGTERM:
            assert server.stop() == 0
            child = int((tmp_path / "noisy.pid").read_text())
            assert until(lambda: not Path(f"/proc/{child}").exists())
        else:
            server.kill()
        assert time.monotonic() - begun < 30
        server.start()
        assert until(lambda: server.call("GET", "/v1/alerts")[1]["alerts"] != [])
        (alert,) = server.call("GET", "/v1/alerts")[1]["alerts"]
        assert alert["state"] == "firing"
        time.sleep(2)
        assert listeners["good"].taken == 1
    with suppress(ProcessLookupError):
        os.kill(int((tmp_path / "noisy.pid").read_text()), signal.SIGKILL)


def memory_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/status").read_text().partition("VmRSS:")[2].split()[0]) * 1024


@pytest.mark.parametrize(
    "fields",
    [
        f'webhook = ["http://x/{SECRET}"]',
        f'command = "curl {SECRET}"',
        f'webhook = "http://[{SECRET}"',
        f'webhook = "http://x:{SECRET}/"',
        f'email = {{to = ["a@b"], sender = "a@b", server = "smtp://x:{SECRET}"}}',
        f'email = {{to = ["a@b"], sender = "a@b", server = "smtp://x", password = "{SECRET}"}}',
    ],
)
def test_a_slip_in_the_receivers_is_told_without_what_stands_there(tmp_path: Path, fields: str) -> None:
    from edgeml_devices.server.alerts.receivers import read_receivers

    file = tmp_path / "receivers.toml"
    file.write_text(f'receivers = [{{name = "ops", {fields}}}]')
    with pytest.raises(UsageError) as caught:
        read_receivers(file)
    assert SECRET not in str(caught.value)
    assert "ops" in str(caught.value) or "receivers[0]" in str(caught.value) or "/0" in str(caught.value)
