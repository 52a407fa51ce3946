"""Telemetry that comes at once is answered without the application, and just as the application would."""

from __future__ import annotations

import json
import secrets
import socket
import time
from collections.abc import Iterator
from typing import Self
from urllib.parse import urlsplit

import pytest

from edgeml.telemetry.encoding import Encoded, batch_to_bytes, report_to_json
from edgeml.telemetry.report import Batch
from tests.integration.server_process import ServerProcess
from tests.integration.telemetry.windows import Telemetry

Answer = tuple[int, dict[str, object], bytes]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("short") / "server") as server:
        yield server


@pytest.fixture
def token(server: ServerProcess) -> str:
    return _enrolled(server)


def test_a_batch_is_stored_once_and_its_connection_goes_on(server, token) -> None:
    stream = Telemetry()
    with Connection(server) as connection:
        for seq in range(3):
            request = _request(token, _batch(stream))
            for _ in range(2):
                status, told, head = connection.ask(request)
                assert (status, told["acked_through"], told["gaps"]) == (200, seq, [])
                assert b"\ndate: " in head.lower()
    status, told = server.call("GET", "/v1/telemetry/rate?by=device")
    assert status == 200, told
    calls = [row["calls"] for row in told["answers"]]
    assert 3 * 60 in calls, told


@pytest.mark.parametrize("pause_s", [0.0, 0.01, 0.2], ids=["at once", "in two pieces", "slowly"])
def test_a_body_may_come_after_its_head(server, token, pause_s) -> None:
    head, body = _split(_request(token, _batch(Telemetry())))
    with Connection(server) as connection:
        connection.send(head)
        time.sleep(pause_s)
        connection.send(body[:100])
        time.sleep(pause_s)
        connection.send(body[100:])
        status, told, _ = connection.answer()
    assert (status, told["acked_through"]) == (200, 0)


def test_requests_that_do_not_wait_for_answers_are_answered_in_their_order(server, token) -> None:
    stream = Telemetry()
    first, second, third = (_request(token, _batch(stream)) for _ in range(3))
    version = b"GET /v1/openapi.json HTTP/1.1\r\nHost: x\r\n\r\n"
    with Connection(server) as connection:
        connection.send(first + second + version + third)
        told = [connection.answer()[1] for _ in range(4)]
    assert [one.get("acked_through") for one in told] == [0, 1, None, 2]
    assert "openapi" in told[2]


def test_what_is_refused_is_refused_alike(server, token) -> None:
    stream = Telemetry()
    with Connection(server) as connection:
        assert connection.ask(_request(token, _batch(stream)))[0] == 200
    clone = Telemetry(epoch=stream.epoch)
    sound = _batch(Telemetry())
    wrong = {
        401: _request("x" * 43, sound),
        400: _request(token, Encoded(b"garbage", sound.content_type)),
        415: _request(token, Encoded(b"{}", "text/plain", "identity")),
        409: _request(token, _batch(clone)),
    }
    for status, request in wrong.items():
        with Connection(server) as connection:
            at_once = connection.ask(request)
            head, body = _split(request)
            connection.send(head)
            time.sleep(0.2)
            slowly = connection.ask(body)
        assert at_once[0] == slowly[0] == status
        assert at_once[1] == slowly[1]


def test_a_connection_ends_where_its_device_asks_for_that(server, token) -> None:
    request = _request(token, _batch(Telemetry())).replace(b"\r\n", b"\r\nConnection: close\r\n", 1)
    with Connection(server) as connection:
        assert connection.ask(request)[0] == 200
        assert connection.is_over()


def test_a_device_that_does_not_wait_for_its_answer_is_told_when_it_sends_again(server, token) -> None:
    request = _request(token, _batch(Telemetry()))
    for _ in range(20):
        with Connection(server) as connection:
            connection.send(request)
    with Connection(server) as connection:
        status, told, _ = connection.ask(request)
    assert (status, told["acked_through"]) == (200, 0)


class Connection:
    """Sends bytes, and reads answers one by one."""

    def __init__(self, server: ServerProcess) -> None:
        url = urlsplit(server.url)
        self._socket = socket.create_connection((url.hostname, url.port), timeout=60)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader = self._socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.close()
        self._socket.close()

    def send(self, content: bytes) -> None:
        self._socket.sendall(content)

    def ask(self, request: bytes) -> Answer:
        self.send(request)
        return self.answer()

    def answer(self) -> Answer:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            line = self._reader.readline()
            assert line, head
            head += line
        lines = [line.partition(b":") for line in head.lower().splitlines()]
        length = next(int(value) for name, _, value in lines if name == b"content-length")
        return int(head.split()[1]), json.loads(self._reader.read(length)), head

    def is_over(self) -> bool:
        return self._reader.read(1) == b""


def _batch(stream: Telemetry) -> Encoded:
    now = time.time()
    report = stream.next(now - 1)
    return batch_to_bytes(Batch(stream.epoch, stream.boot_id, stream.uptime_s, now), [report_to_json(report)])


def _request(token: str, batch: Encoded) -> bytes:
    head = (
        f"POST /v1/reports HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Type: {batch.content_type}\r\nContent-Encoding: {batch.content_encoding}\r\n"
        f"Content-Length: {len(batch.body)}\r\n\r\n"
    )
    return head.encode() + batch.body


def _split(request: bytes) -> tuple[bytes, bytes]:
    head, end, body = request.partition(b"\r\n\r\n")
    return head + end, body


def _enrolled(server: ServerProcess) -> str:
    status, join = server.call("POST", "/v1/join-tokens", {"uses": 1})
    assert status == 201, join
    token = secrets.token_urlsafe(32)
    body = {"join_token": join["token"], "device_token": token, "name": secrets.token_hex(4)}
    status, told = server.call("POST", "/v1/enrol", body)
    assert status in {200, 201}, told
    return token
