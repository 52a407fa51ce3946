"""A server that was taken over lies to who publishes: its lies get no signature, and its files no room.

What it says of metadata is in tests/unit/devices/repository/test_state.py.
"""

from __future__ import annotations

import json

import pytest
from edgeml_devices import api_client
from edgeml_devices.api_client import ApiClient

from tests.integration.publish.workshop import Workshop
from tests.unit.devices.operator.scripted_server import ScriptedServer


@pytest.fixture
def hostile():
    with ScriptedServer() as server:
        yield server


@pytest.fixture
def victim(hostile, tmp_path):
    return Workshop(tmp_path / "victim", hostile.url, "token")


@pytest.mark.parametrize(
    "keys",
    [
        b"<html>",
        b"[]",
        b'{"snapshot": 1, "timestamp": 2}',
        b'{"snapshot": {"keyid": "a"}, "timestamp": {"keyid": "a"}}',
        json.dumps({"snapshot": {"keyid": "a", "keytype": "none", "scheme": "none", "keyval": {}}}).encode(),
    ],
)
def test_online_keys_that_are_none(hostile, victim, keys):
    hostile.answer(404)
    hostile.answer(200, keys)
    assert "error" in victim.refused("repo", "init")
    assert not list(victim.keys.glob("*.pem"))


def test_a_first_root_of_nothing(hostile, victim):
    for content in (b"", b"{}", b"\x00" * 1000, b'{"signed": {"_type": "root"}, "signatures": []}'):
        hostile.answer(200, content)
        assert "root is not signed metadata" in victim.refused("publish", victim.bundle(1))
        assert not list((victim.keys / "trust").glob("*.json"))


def test_roots_without_end(hostile, victim, monkeypatch):
    """Endless data: what is read of one answer is bounded."""
    monkeypatch.setattr(api_client, "_BODY_LIMIT_BYTES", 100_000)
    hostile.answer(200, b"x" * 200_000)
    assert "the answer does not end" in victim.refused("publish", victim.bundle(1))


def test_a_blob_that_is_longer_than_signed(hostile, tmp_path):
    path = "/v1/blobs/sha256/" + "a" * 64
    hostile.blobs[path] = b"x" * 100_000
    with ApiClient(hostile.url) as client:
        client.download(path, tmp_path / "blob", 1000)
    assert (tmp_path / "blob").stat().st_size == 1000
