"""What a bad network does beyond what the tests of the agent and of publishing ask of it."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from edgeml.testing.networks import Fault
from edgeml.testing.plugin import MakeBadNetwork


@pytest.fixture
def echo() -> Iterator[str]:
    """A server that gives back what it gets."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_echo, args=(listener,), daemon=True).start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)


def _echo(listener: socket.socket) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection:
            while data := connection.recv(4096):
                connection.sendall(data)


def _connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=10)


def test_it_passes_what_nothing_is_planned_for(bad_network: MakeBadNetwork, echo: str) -> None:
    network = bad_network(echo)
    with _connect(network.port) as client:
        client.sendall(b"hello")
        assert client.recv(5) == b"hello"
    assert (network.connections, network.sent_bytes, network.passed_bytes) == (1, 5, 5)


def test_a_network_that_is_away_ends_connections_until_it_is_back(
    bad_network: MakeBadNetwork, echo: str
) -> None:
    network = bad_network(echo)
    with _connect(network.port) as client:
        client.sendall(b"hello")
        assert client.recv(5) == b"hello"
        network.go_away()
        assert client.recv(1) == b""
    with _connect(network.port) as client:
        assert client.recv(1) == b""
    network.come_back()
    with _connect(network.port) as client:
        client.sendall(b"again")
        assert client.recv(5) == b"again"


def test_what_is_sent_can_be_slow_too(bad_network: MakeBadNetwork, echo: str) -> None:
    network = bad_network(echo)
    network.always = Fault(upload_bytes_per_s=1000)
    begun = time.monotonic()
    with _connect(network.port) as client:
        client.sendall(bytes(300))
        held = b""
        while len(held) < 300:
            held += client.recv(4096)
    assert time.monotonic() - begun > 0.25


def test_the_connection_that_sends_the_last_byte_breaks(bad_network: MakeBadNetwork, echo: str) -> None:
    network = bad_network(echo)
    broken: list[int] = []
    network.break_after(3, lambda: broken.append(network.sent_bytes))
    with _connect(network.port) as client:
        client.sendall(b"hello")
        held = b""
        while data := client.recv(5):
            held += data
    assert len(held) <= 3
    assert broken == [3]


def test_a_url_keeps_its_scheme(bad_network: MakeBadNetwork) -> None:
    assert bad_network("https://127.0.0.1:9").url.startswith("https://127.0.0.1:")
