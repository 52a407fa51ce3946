"""Servers that answer a device with whatever they like: nothing is given up for it, and nothing runs hot."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from edgeml.errors import ServerError, UsageError
from edgeml.telemetry.posting import Poster
from edgeml.telemetry.sender import Outcome, Sender
from edgeml.telemetry.spool import Spool, open_spool
from tests.faults.tiny_collector import TOKEN, Answer, Collector, CollectorServer
from tests.unit.core.telemetry.reports import window

WINDOWS = 5
FORK = 409


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    spool = open_spool(tmp_path / "spool")
    assert spool is not None
    for number in range(WINDOWS):
        spool.append(window(number), {})
    yield spool
    spool.close()


@pytest.fixture
def collector() -> Collector:
    return Collector()


@pytest.fixture
def sender(spool: Spool, collector: Collector) -> Iterator[Sender]:
    with CollectorServer(collector) as server:
        poster = Poster(server.url, TOKEN)
        yield Sender(spool, poster, since_boot=lambda: 0.0)
        poster.close()


def send_all(sender: Sender, most: int = 50) -> int:
    """Send until there is nothing to send or not now; give the number of attempts."""
    for number in range(1, most + 1):
        if sender.send() is not Outcome.SENT:
            return number
    raise AssertionError("it goes on and on")


DEEP = b"[" * 30_000
DEEP_OBJECT = b'{"error":' * 7000
ANSWERS = [
    *(b"", b"null", b"[]", b"\xff\xfe", DEEP, DEEP_OBJECT, b"1" * 60_000),
    *(b'{"acked_through": %s}' % one for one in (b"-5", b"1e308", b"true", b'"4"', b"null", b"NaN", b"[4]")),
    *(b'{"acked_through": 4, "gaps": %s}' % one for one in (b"5", b"[[1]]", b"[[1, 1e999]]", b'{"a": 1}')),
    b'{"acked_through": -1, "acked_through": -1}',
]


@pytest.mark.parametrize("status", [200, 201, 302, 400, 409, 413, 422, 500])
@pytest.mark.parametrize("body", ANSWERS, ids=range(len(ANSWERS)))
def test_an_answer_that_is_none_costs_no_window(
    spool: Spool, sender: Sender, collector: Collector, status: int, body: bytes
) -> None:
    if status == FORK and b": 4," in body:
        body = body.replace(b": 4,", b": -1,")  # in a fork this is all that is looked at
    collector.before = lambda _batch: (status, body, {"Location": "http://127.0.0.1:1/"})
    send_all(sender)
    assert spool.waiting == WINDOWS
    assert spool.state.lost.evicted == 0


@pytest.mark.parametrize("through", [10**9, 10**400, WINDOWS - 1])
def test_no_more_is_forgotten_than_was_sent(
    spool: Spool, sender: Sender, collector: Collector, through: int
) -> None:
    collector.before = lambda _batch: (200, json.dumps({"acked_through": through}).encode(), {})
    send_all(sender)
    assert spool.state.acked_through == WINDOWS - 1
    spool.append(window(WINDOWS), {})
    assert [one.seq for one in spool.batch()] == [WINDOWS]


@pytest.mark.parametrize(
    "value", ["1e308", "-5", "NaN", "inf", "9" * 400, "³", "Wed, 21 Oct 2099 07:28:00 GMT", ""]
)
def test_a_wait_is_an_hour_at_most(sender: Sender, collector: Collector, value: str) -> None:
    headers = {"Retry-After": value}
    collector.before = lambda _batch: (503, b"", headers)
    with suppress(UnicodeEncodeError):
        assert sender.send() is Outcome.LATER
    assert sender.not_before_s <= 3600


@pytest.mark.parametrize("body", [b"", b'{"acked_through": 0}', b'{"acked_through": -1}', b"<html>"])
def test_a_server_that_takes_no_epoch_is_asked_once_an_hour(
    spool: Spool, sender: Sender, collector: Collector, body: bytes
) -> None:
    collector.before = lambda _batch: (409, body, {})
    attempts = send_all(sender)
    assert attempts <= 4
    assert sender.not_before_s == 3600
    assert spool.waiting >= WINDOWS - 2


def test_what_a_proxy_refuses_is_kept(spool: Spool, sender: Sender, collector: Collector) -> None:
    page: Answer = (400, b"<html>The plain HTTP request was sent to HTTPS port</html>", {})
    collector.before = lambda _batch: page
    send_all(sender)
    assert spool.waiting == WINDOWS
    collector.before = lambda _batch: None
    sender.not_before_s = 0.0
    send_all(sender)
    assert spool.waiting == 0
    assert collector.numbers(spool.state.epoch) == dict.fromkeys(range(WINDOWS), 1)


@contextmanager
def answering(begin: bytes, again: bytes = b"", every_s: float = 0.0) -> Iterator[str]:
    """Serve one answer: a beginning, and then more of the same for ever."""
    ended = threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with suppress(OSError):
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(begin)
                while again and not ended.wait(every_s):
                    connection.sendall(again)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        ended.set()
        listener.close()
        thread.join(5)


OK = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    ("begin", "again", "every_s"),
    [
        (OK + b"Connection: close\r\n\r\n", b"x" * 65536, 0.0),
        (OK + b"Content-Length: 99999999\r\n\r\n", b"x" * 65536, 0.0),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n", b"x" * 65536, 0.0),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n-5\r\n", b"x" * 65536, 0.0),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n", b"ffffffff\r\n" + b"x" * 65536, 0.0),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n", b"\r\n", 0.0),
        (OK + b"Content-Length: -5\r\nConnection: close\r\n\r\n", b"x" * 65536, 0.0),
        (OK + b"Connection: close\r\n\r\n", b"x", 0.05),
        (OK + b"Content-Length: 1000\r\n\r\n", b"x", 0.05),
        (OK, b"x", 0.05),
        (OK, b"A: b\r\n", 0.0),
        (b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n", 0.001),
        (b"", b"HTTP", 0.0),
        (b"HTTP/9 x\r\n\r\n", b"", 0.0),
        (b"\0" * 1000, b"", 0.0),
        (b"", b"", 0.0),
    ],
)
def test_an_answer_without_end_is_ended(begin: bytes, again: bytes, every_s: float) -> None:
    begun = time.monotonic()
    with (
        answering(begin, again, every_s) as url,
        closing(Poster(url, TOKEN, whole_s=1.0)) as poster,
        suppress(ServerError),
    ):
        assert set(poster("/v1/reports", b"", {}).body) <= {ord("x")}  # cut off: no JSON
    assert time.monotonic() - begun < 30


@pytest.mark.parametrize("url", ["http://host:99999", "http://host:x", "ftp://host", "http://"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="not a server's address"):
        Poster(url, TOKEN)


def test_a_host_that_cannot_be_is_no_server() -> None:
    with pytest.raises(ServerError):
        Poster(f"http://{'a' * 100}.example", TOKEN)("/v1/reports", b"", {})
