"""What strangers and thieves send to the server: refused cleanly, cheaply, and in the audit log."""

from __future__ import annotations

import json
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from http.client import HTTPConnection
from pathlib import Path

import pytest
from edgeml_devices.server.process import build_server
from edgeml_devices.server.settings import Limits, ServerSettings

HEADER_S, PAUSE_S = 2.0, 3.0
JOIN = b'{"join_token": "x", "device_token": "' + b"t" * 43 + b'"}'


@pytest.fixture
def address(tmp_path: Path) -> Iterator[tuple[str, int]]:
    """A server with little patience, in a thread; its address."""
    limits = Limits(header_s=HEADER_S, body_pause_s=PAUSE_S, body_grace_s=2.0, body_bytes_per_s=1000)
    listening = socket.create_server(("127.0.0.1", 0))
    found = listening.getsockname()
    server = build_server(ServerSettings(tmp_path / "server", limits=limits))
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    deadline = time.monotonic() + 120
    while not server.started:
        assert thread.is_alive()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    yield found
    server.should_exit = True
    thread.join(60)
    listening.close()


def _answer(connection: socket.socket, timeout_s: float = 60.0) -> bytes:
    """Read until the server closes."""
    connection.settimeout(timeout_s)
    found = b""
    with suppress(ConnectionError):
        while chunk := connection.recv(65536):
            found += chunk
    return found


def _send(address: tuple[str, int], request: bytes) -> tuple[int, bytes]:
    with socket.create_connection(address) as connection:
        with suppress(ConnectionError):
            connection.sendall(request)
        answer = _answer(connection)
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]) if head else 0, body


def _post(path: str, body: bytes, *headers: str) -> bytes:
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: x",
        "Connection: close",
        f"Content-Length: {len(body)}",
        *headers,
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def test_a_head_that_never_ends_loses_its_connection(address, tmp_path: Path) -> None:
    with socket.create_connection(address) as silent, socket.create_connection(address) as dripping:
        begun = time.monotonic()
        dripping.sendall(b"GET /v1/server HTTP/1.1\r\n")
        dripping.settimeout(0.05)
        closed = False
        while not closed and time.monotonic() - begun < 60:
            try:
                dripping.sendall(b"X: y\r\n")
                closed = dripping.recv(100) == b""
            except TimeoutError:
                pass
            except ConnectionError:
                closed = True
        assert closed
        assert _answer(silent) == b""
    while not (rows := _refusals(tmp_path)):
        assert time.monotonic() - begun < 120
        time.sleep(0.05)
    assert "too slowly" in rows[0][1]


def test_a_head_without_end_in_size_is_refused(address) -> None:
    status, _ = _send(address, b"GET / HTTP/1.1\r\nX: " + b"y" * 200_000)
    assert status == 400


def test_a_body_that_stops_or_drips_is_refused_in_time(address, tmp_path: Path) -> None:
    head = b"POST /v1/enrol HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n"
    for drip in (b"", b"x"):
        with socket.create_connection(address) as connection:
            connection.sendall(head)
            begun = time.monotonic()
            connection.settimeout(0.1)
            answer = b""
            while not answer and time.monotonic() - begun < 60:
                try:
                    if drip:
                        connection.sendall(drip)
                    answer = connection.recv(65536)
                except TimeoutError:
                    pass
            assert answer.startswith(b"HTTP/1.1 408 ")
    assert ["body" in row[1] for row in _refusals(tmp_path)] == [True, True]


def test_a_body_that_is_too_long_is_refused_before_it_is_read(address) -> None:
    head = b"POST /v1/enrol HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 9000000000\r\n\r\n"
    status, body = _send(address, head + b"x" * 3_000_000)
    assert status == 413
    assert json.loads(body)["error"]["type"] == "too_large"


def test_garbage_gets_a_clean_answer_and_the_server_goes_on(address) -> None:
    for request in (
        b"\x00\x01\x02\x03\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
        b"GET /v1/agent/state?wait=%00 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"GET /v1/devices/%00 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"GET /v1/server HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer \xff\xfe\r\n\r\n",
        _post("/v1/enrol", b"\xff\xfe"),
        _post("/v1/enrol", b"[" * 500_000),
        _post("/v1/enrol", b"1" * 500_000),
        _post("/v1/enrol", JOIN[:-1]),
        _post("/v1/repository/init", b"{}"),
        b"POST /v1/enrol HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"PUT /v1/blobs/sha256/../../../etc/passwd HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    ):
        status, body = _send(address, request)
        assert 400 <= status < 500, request[:60]
        assert b"Traceback" not in body
    status, body = _send(address, _post("/v1/enrol", JOIN))
    assert (status, json.loads(body)["error"]["type"]) == (401, "unauthorized")


def test_a_flood_of_strangers_leaves_few_rows_in_the_audit_log(address, tmp_path: Path) -> None:
    with closing(HTTPConnection(*address, timeout=60)) as connection:
        for _ in range(300):
            connection.request("GET", "/v1/server", headers={"Authorization": "Bearer nobody"})
            answer = connection.getresponse()
            assert (answer.status, json.loads(answer.read())["error"]["type"]) == (401, "unauthorized")
    assert [row[0] for row in _refusals(tmp_path)] == ["anonymous:127.0.0.1"]


def _refusals(tmp_path: Path) -> list[tuple[str, str]]:
    """Give actor and detail of each refusal in the audit log."""
    with closing(sqlite3.connect(tmp_path / "server" / "edgeml.db")) as database:
        return database.execute("SELECT actor, detail FROM audit WHERE action = 'refused'").fetchall()
