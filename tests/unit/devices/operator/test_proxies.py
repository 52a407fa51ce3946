"""Telemetry reaches a server through the proxy of the environment, with an agent and without one."""

from __future__ import annotations

import socket
import ssl
from base64 import b64encode
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from edgeml_devices.agent.client import ServerClient

from edgeml.errors import ServerError, UsageError
from edgeml.telemetry.posting import Poster
from edgeml.telemetry.sender import Reply
from tests.unit.devices.operator.forward_proxy import ForwardProxy
from tests.unit.devices.operator.scripted_server import ScriptedServer

NAMES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def no_proxy_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def proxy() -> Iterator[ForwardProxy]:
    with ForwardProxy() as proxy:
        yield proxy


@pytest.fixture(params=["http", "https"])
def server(request: pytest.FixtureRequest, authority: Path) -> Iterator[ScriptedServer]:
    context = None
    if request.param == "https":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(authority / "server.pem")
    with ScriptedServer(tls=context) as server:
        yield server


@pytest.fixture(params=["alone", "agent"])
def how(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def send(how: str, server: ScriptedServer, authority: Path, times: int = 1) -> Reply:
    """Post telemetry as a process without an agent does, or as the agent does."""
    for _ in range(times):
        server.answer(200, {"ok": True})
    if how == "agent":
        client = ServerClient(server.url, "secret", authority / "ca.pem")
        return [client.post("/v1/reports", b"x", {}) for _ in range(times)][-1]
    with closing(Poster(server.url, "secret", authority / "ca.pem")) as post:
        return [post("/v1/reports", b"x", {}) for _ in range(times)][-1]


def by_way_of(server: ScriptedServer) -> str:
    if server.tls is None:
        return f"POST {server.url}/v1/reports"
    return f"CONNECT {server.url.removeprefix('https://')}"


def test_the_proxy_of_the_scheme_is_used(how, server, authority, proxy, monkeypatch) -> None:
    monkeypatch.setenv("HTTP_PROXY" if server.tls is None else "HTTPS_PROXY", f"http://{proxy.address}")
    assert send(how, server, authority, times=2).status == 200
    # one tunnel carries both requests
    assert proxy.asked == [by_way_of(server)] * (2 if server.tls is None else 1)
    (first, _) = server.requests
    assert (first.path, first.body) == ("/v1/reports", b"x")
    assert first.headers["host"] == server.url.partition("://")[2]
    assert first.headers["authorization"] == "Bearer secret"


def test_the_other_schemes_proxy_and_hosts_without_one_are_reached_directly(
    how, server, authority, proxy, monkeypatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY" if server.tls is None else "HTTP_PROXY", f"http://{proxy.address}")
    assert send(how, server, authority).status == 200
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, proxy.address)
    monkeypatch.setenv("NO_PROXY", "example.org,127.0.0.1")
    assert send(how, server, authority).status == 200
    assert proxy.asked == []


def test_a_proxy_gets_the_login_of_its_address_and_the_server_does_not(
    how, server, authority, proxy, monkeypatch
) -> None:
    proxy.login = b64encode(b"me:p@ss").decode()
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, f"http://me:p%40ss@{proxy.address}")
    assert send(how, server, authority).status == 200
    assert len(proxy.asked) == 1
    assert not any(name.lower().startswith("proxy-") for name in server.requests[0].headers)


def test_a_proxy_that_refuses_or_is_gone_is_named(server, authority, proxy, monkeypatch) -> None:
    proxy.login = "other"
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, f"http://me:secret@{proxy.address}")
    if server.tls is None:
        assert send("alone", server, authority).status == 407
    else:
        with pytest.raises(ServerError, match=rf"through the proxy {proxy.address} cannot be reached: .*407"):
            send("alone", server, authority)
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://me:secret@127.0.0.1:9")
    with pytest.raises(ServerError, match=r"through the proxy 127\.0\.0\.1:9 cannot be reached"):
        send("alone", server, authority)
    assert server.requests == []


@pytest.mark.parametrize("address", ["socks5://127.0.0.1:9", "http://127.0.0.1:port"])
def test_an_address_that_is_no_proxys_is_said_at_once(how, server, authority, address, monkeypatch) -> None:
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, address)
    with pytest.raises(UsageError, match="_PROXY cannot be used"):
        send(how, server, authority)


def test_a_proxy_that_says_nothing_holds_no_telemetry(monkeypatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{silent.getsockname()[1]}")
        with (
            closing(Poster("https://127.0.0.1:1", "secret", whole_s=0.3)) as post,
            pytest.raises(ServerError, match="through the proxy"),
        ):
            post("/v1/reports", b"x", {})
