"""HTTPS: certificates are checked against the given authority, and names against the certificate."""

from __future__ import annotations

import ipaddress
import ssl
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from edgeml_devices.agent.client import ServerClient, UnreachableError
from edgeml_devices.api_client import ApiClient

from edgeml.errors import ServerError, UsageError
from edgeml.telemetry.posting import Poster
from tests.unit.devices.operator.scripted_server import ScriptedServer


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    """A folder with ca.pem, and server.pem (key and certificate for 127.0.0.1)."""
    folder = tmp_path_factory.mktemp("tls")
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "an authority")])
    (folder / "ca.pem").write_bytes(certificate(ca_name, ca_name, ca_key, ca_key, is_ca=True))
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "server")])
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "server.pem").write_bytes(private + certificate(name, ca_name, key, ca_key, is_ca=False))
    return folder


def certificate(subject, issuer, key, issuer_key, *, is_ca):
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False
        )
    )
    if is_ca:
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        builder = builder.add_extension(usage, critical=True)
    else:
        names = [x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(issuer_key, hashes.SHA256()).public_bytes(Encoding.PEM)


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
