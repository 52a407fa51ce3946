"""The client of the server: what it retries, what it never repeats, how it resumes, and what it says."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest
from click.testing import CliRunner
from edgeml_devices import api_client, http_pool
from edgeml_devices.api_answers import RefusedError
from edgeml_devices.api_client import ApiClient, endpoint

from edgeml.cli import main
from edgeml.errors import ServerError, UsageError
from tests.unit.devices.operator.scripted_server import ScriptedServer

BLOB = "/v1/blobs/sha256/" + "a" * 64


@pytest.fixture
def server():
    with ScriptedServer() as server:
        yield server


@pytest.fixture
def client(server, monkeypatch):
    monkeypatch.setattr(api_client.time, "sleep", lambda _: None)
    with ApiClient(server.url, "secret") as client:
        yield client


def test_json_goes_both_ways_with_the_token(server, client):
    server.answer(200, {"name": "pi-7"})
    assert client.patch("/v1/devices/pi", {"name": "pi-7"}) == {"name": "pi-7"}
    (request,) = server.requests
    assert (request.method, request.body) == ("PATCH", b'{"name": "pi-7"}')
    assert request.headers["authorization"] == "Bearer secret"
    assert request.headers["accept-encoding"] == "identity"


def test_a_path_is_escaped():
    assert endpoint("devices", "a/b c?", "models", 3) == "/v1/devices/a%2Fb%20c%3F/models/3"


def test_an_answer_without_content_is_none(server, client):
    server.answer(204)
    assert client.delete("/v1/groups/x") is None


def test_all_pages_are_read(server, client):
    server.answer(200, {"devices": [1, 2], "next": "b"})
    server.answer(200, {"devices": [3], "next": None})
    assert list(client.pages("/v1/devices", "devices", {"limit": 2})) == [1, 2, 3]
    assert [request.path for request in server.requests] == [
        "/v1/devices?limit=2",
        "/v1/devices?limit=2&after=b",
    ]


# --- what is said


def test_a_refusal_has_the_servers_words_and_status(server, client):
    server.answer(409, {"error": {"type": "conflict", "message": "release 3 is taken"}})
    with pytest.raises(RefusedError, match=r"127\.0\.0\.1:\d+: release 3 is taken$") as caught:
        client.post("/v1/releases", {})
    assert caught.value.status == 409


@pytest.mark.parametrize(
    ("status", "says"),
    [(401, "give a token that the server knows"), (403, "ask an admin for a token of a role")],
)
def test_what_to_do_next_is_said(server, client, status, says):
    server.answer(status, {"error": {"type": "x", "message": "this needs another role"}})
    with pytest.raises(RefusedError, match=says):
        client.get("/v1/devices")


def test_what_is_not_there_is_none_only_where_asked(server, client):
    for _ in range(2):
        server.answer(404, {"error": {"type": "not_found", "message": "no such device"}})
    assert client.find_bytes("/v1/devices/x") is None
    with pytest.raises(RefusedError, match="no such device"):
        client.get("/v1/devices/x")


def test_a_foreign_page_is_not_taken_for_an_answer(server, client):
    server.answer(200, b"<html>Welcome</html>")
    with pytest.raises(ServerError, match="did not answer with JSON; is this the address"):
        client.get("/v1/devices")
    server.answer(500, b"<html>Oops</html>")
    with pytest.raises(RefusedError, match="HTTP 500 and no answer of an edgeml server"):
        client.get("/v1/devices")


@pytest.mark.parametrize("body", [b"[]", b'"x"', b"null", b"17", b"true", b"", b"[" * 100_000])
@pytest.mark.parametrize("ask", ["get", "post", "put", "patch"])
def test_an_answer_that_is_no_object_is_the_servers_fault(server, client, ask, body):
    server.answer(200, body)
    with pytest.raises(ServerError, match=r"/v1/devices .*answer.*; is this the address "):
        getattr(client, ask)("/v1/devices")


def test_a_field_that_an_answer_lacks_is_the_servers_fault(server, client):
    server.answer(201, {})
    with pytest.raises(ServerError, match=r"/v1/tokens answered without 'token'; is this the address"):
        client.post("/v1/tokens", {})["token"]
    server.answer(200, {"devices": None})
    with pytest.raises(ServerError, match=r"/v1/devices answered with 'devices' that are no list"):
        list(client.pages("/v1/devices", "devices"))


@pytest.mark.parametrize("command", [["devices", "list"], ["tokens", "list"], ["groups", "list"]])
def test_commands_say_so_in_a_sentence(server, command):
    server.answer(200, [])
    done = CliRunner().invoke(main, [*command, "--server", server.url, "--token", "x"])
    assert done.exit_code == 1
    assert "answered with JSON that is no object; is this the address" in done.stderr


def test_a_token_that_is_refused_where_a_blob_is_asked_for_is_not_blamed_on_the_address(server, client):
    server.answer(401, b"")
    with pytest.raises(RefusedError, match="HTTP 401; give a token that the server knows"):
        client.exists("/v1/blobs/sha256/00")


def test_the_token_is_not_sent_where_a_redirect_points(server, client):
    with ScriptedServer() as other:
        server.answer(302, b"", Location=f"{other.url}/v1/devices")
        with pytest.raises(RefusedError, match=f"it sends elsewhere; use that address: {other.url}"):
            client.get("/v1/devices")
        assert not other.requests


def test_a_server_that_is_not_there_is_told():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        with ApiClient(url) as client, pytest.raises(ServerError, match=r"cannot be reached: .*refused"):
            client.get("/v1/server")


def test_an_answer_without_end_is_given_up(server, client, monkeypatch):
    monkeypatch.setattr(api_client, "_BODY_LIMIT_BYTES", 1000)
    server.answer(200, b"[" + b"1," * 5000)
    with pytest.raises(ServerError, match="the answer does not end"):
        client.get("/v1/devices")


@pytest.mark.parametrize("url", ["", "server", "ftp://server", "https://", "//server"])
def test_what_is_no_address_is_a_mistake_of_the_caller(url):
    with pytest.raises(UsageError, match="is not a server's address"):
        ApiClient(url)


def test_a_missing_ca_file_is_told(tmp_path):
    with pytest.raises(UsageError, match="no such CA file"):
        ApiClient("https://server", ca_file=tmp_path / "none.pem")


# --- what is sent again


@pytest.mark.parametrize("failure", [0, 429, 502, 503])
def test_a_question_is_asked_again(server, client, failure):
    server.answer(failure, b"busy", Retry_After="0")
    server.answer(200, {"ok": True})
    assert client.get("/v1/server") == {"ok": True}


def test_an_order_is_not_given_twice_when_its_answer_is_lost(server, client):
    server.answer(0)
    with pytest.raises(ServerError, match="cannot be reached"):
        client.post("/v1/tokens", {"name": "ci", "role": "viewer"})
    assert len(server.requests) == 1


def test_an_order_that_was_surely_not_carried_out_is_given_again(server, client):
    server.answer(503, b"", Retry_After="0")
    server.answer(201, {"token": "x"})
    assert client.post("/v1/tokens", {}) == {"token": "x"}


def test_an_idempotent_order_is_given_again(server, client):
    server.answer(0)
    server.answer(200, {"ok": True})
    assert client.post("/v1/releases", {}, idempotent=True) == {"ok": True}


def test_a_server_that_stays_busy_is_told(server, client):
    for _ in range(20):
        server.answer(503, {"error": {"type": "busy", "message": "restoring"}}, Retry_After="0")
    with pytest.raises(RefusedError, match="restoring; it is busy or restarting, try again in a minute"):
        client.get("/v1/server")


# --- blobs


def test_a_cut_upload_goes_on_where_it_was_cut(server, client, tmp_path):
    file = tmp_path / "model"
    file.write_bytes(bytes(range(256)) * 4000)
    server.cuts.extend([100_000, 1, 0, 300_000])
    seen = []
    client.upload(BLOB, file, progress=seen.append)
    assert server.blobs[BLOB] == file.read_bytes()
    assert server.received_bytes == len(file.read_bytes())
    assert seen[-1] == file.stat().st_size


def test_an_upload_is_taken_up_by_another_run(server, client, tmp_path):
    file = tmp_path / "model"
    file.write_bytes(b"x" * 10_000)
    server.parts[BLOB] = b"x" * 9_000
    client.upload(BLOB, file)
    assert server.received_bytes == 1_000


def test_large_files_go_in_pieces(server, client, tmp_path, monkeypatch):
    monkeypatch.setattr(api_client, "_PIECE_BYTES", 1000)
    file = tmp_path / "model"
    file.write_bytes(b"y" * 2500)
    client.upload(BLOB, file)
    ranges = [request.headers["content-range"] for request in server.requests]
    assert ranges == ["bytes */2500", "bytes 0-999/2500", "bytes 1000-1999/2500", "bytes 2000-2499/2500"]


def test_an_empty_file_is_uploaded(server, client, tmp_path):
    file = tmp_path / "labels.txt"
    file.write_bytes(b"")
    client.upload(BLOB, file)
    assert server.blobs[BLOB] == b""


def test_an_upload_without_progress_is_given_up(server, client, tmp_path):
    file = tmp_path / "model"
    file.write_bytes(b"x" * 1000)
    server.cuts.extend([0] * 50)
    with pytest.raises(ServerError, match=r"nothing of .* arrives behind byte 0: .*run the command again"):
        client.upload(BLOB, file)


def test_a_blob_of_another_hash_is_refused_at_once(server, client, tmp_path):
    file = tmp_path / "model"
    file.write_bytes(b"x" * 1000)
    server.answer(308)
    server.answer(409, {"error": {"type": "hash", "message": "its sha256 is another"}})
    with pytest.raises(RefusedError, match="its sha256 is another"):
        client.upload(BLOB, file)
    assert len(server.requests) == 2


def test_a_viewers_upload_is_refused_at_once(server, client, tmp_path):
    file = tmp_path / "model"
    file.write_bytes(b"x")
    server.answer(403, {"error": {"type": "forbidden", "message": "a viewer must not"}})
    with pytest.raises(RefusedError, match="a viewer must not"):
        client.upload(BLOB, file)
    assert len(server.requests) == 1


def test_a_cut_download_goes_on_where_it_was_cut(server, client, tmp_path):
    blob = bytes(range(256)) * 4000
    server.blobs[BLOB] = blob
    server.cuts.extend([100_000, 0, 5])
    client.download(BLOB, tmp_path / "blob", len(blob))
    assert (tmp_path / "blob").read_bytes() == blob
    assert server.sent_bytes <= len(blob) * 1.01


@pytest.mark.parametrize(
    ("status", "headers"), [(200, {}), (206, {"Content_Range": "bytes 0-9/10"})], ids=["whole", "other part"]
)
def test_another_part_than_was_asked_for_is_not_appended(server, client, tmp_path, status, headers):
    file = tmp_path / "blob"
    file.write_bytes(b"01234")
    for _ in range(20):
        server.answer(status, b"0123456789", **headers)
    with pytest.raises(ServerError, match="breaks off at byte 5"):
        client.download(BLOB, file, 10)
    assert file.read_bytes() == b"01234"


# --- the way there


def test_a_proxy_of_the_environment_is_used_with_its_password(server, monkeypatch):
    monkeypatch.setenv("http_proxy", server.url.replace("//", "//user:pass%20word@"))
    monkeypatch.setenv("no_proxy", "")
    server.answer(200, {"ok": True})
    with ApiClient("http://edgeml.example") as client:
        assert client.get("/v1/server") == {"ok": True}
    (request,) = server.requests
    assert request.path == "http://edgeml.example/v1/server"
    assert request.headers["proxy-authorization"] == "Basic dXNlcjpwYXNzIHdvcmQ="


def test_no_proxy_is_honoured(server, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server.answer(200, {"ok": True})
    with ApiClient(server.url) as client:
        assert client.get("/v1/server") == {"ok": True}


def test_the_commands_import_neither_client_nor_cryptography():
    """Every ``edgeml --help`` imports all commands."""
    modules = [
        *(
            f"edgeml_devices.operator.{name}_cli"
            for name in ("audit", "devices", "groups", "releases", "tokens")
        ),
        *(f"edgeml_devices.repository.{name}_cli" for name in ("keys", "publish", "repo")),
    ]
    heavy = ["urllib3", "tuf", "cryptography", "securesystemslib", "numpy", "rich.console", "http.client"]
    code = f"import sys, {', '.join(modules)}; print([name for name in {heavy} if name in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert shown.stdout.strip() == "[]"


def test_the_wait_that_a_server_asks_for_is_bounded():
    retry = http_pool.retry_policy()
    response = type("Response", (), {"headers": {"Retry-After": "86400"}})()
    assert retry.get_retry_after(response) == 30.0
