"""HTTPS: certificates are checked against the given authority, and names against the certificate."""

from __future__ import annotations

import ssl
from contextlib import closing

import pytest
from edgeml_devices.agent.client import ServerClient, UnreachableError
from edgeml_devices.api_client import ApiClient

from edgeml.errors import ServerError, UsageError
from edgeml.telemetry.posting import Poster
from tests.unit.devices.operator.scripted_server import ScriptedServer


@pytest.fixture
def server(authority):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority / "server.pem")
    with ScriptedServer(tls=context) as server:
        yield server


def test_a_private_authority_is_trusted_where_it_is_given(server, authority):
    server.answer(200, {"ok": True})
    with ApiClient(server.url, "secret", authority / "ca.pem") as client:
        assert client.get("/v1/server") == {"ok": True}


def test_an_unknown_authority_is_refused_before_the_token_is_sent(server):
    with (
        ApiClient(server.url, "secret") as client,
        pytest.raises(ServerError, match="its certificate is not trusted"),
    ):
        client.get("/v1/server")
    assert server.requests == []


def test_a_certificate_of_another_name_is_refused(server, authority):
    url = server.url.replace("127.0.0.1", "localhost")
    with (
        ApiClient(url, "secret", authority / "ca.pem") as client,
        pytest.raises(ServerError, match="its certificate is not trusted"),
    ):
        client.get("/v1/server")
    assert server.requests == []


def test_an_agent_that_trusts_no_such_authority_says_what_to_give_it(server):
    with pytest.raises(UnreachableError, match=r"its certificate is not trusted.*--ca-file"):
        ServerClient(server.url).first_root()
    assert server.requests == []


def test_an_agent_names_the_authorities_file_that_it_lacks(server, tmp_path):
    gone = tmp_path / "ca.pem"
    with pytest.raises(UnreachableError, match=f"no such CA file: {gone}"):
        ServerClient(server.url, ca_file=gone).first_root()


def test_telemetry_without_an_agent_is_sent_to_a_trusted_server_only(server, authority):
    server.answer(200, {"ok": True})
    with closing(Poster(server.url, "secret", authority / "ca.pem")) as post:
        assert post("/v1/reports", b"x", {}).status == 200
    sent = len(server.requests)
    other = server.url.replace("127.0.0.1", "localhost")
    for url, ca_file in ((server.url, None), (other, authority / "ca.pem")):
        with (
            closing(Poster(url, "secret", ca_file)) as post,
            pytest.raises(ServerError, match=r"cannot be reached.*certificate verify failed"),
        ):
            post("/v1/reports", b"x", {})
    assert len(server.requests) == sent == 1


def test_telemetry_names_the_authorities_file_that_cannot_be_read(tmp_path):
    with pytest.raises(UsageError, match=r"ca\.pem: no certificates"):
        Poster("https://fleet.example", "secret", tmp_path / "ca.pem")
