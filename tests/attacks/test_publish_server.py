"""Who tries to publish what is not theirs: refused by the server, with the reason in the audit log."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from edgeml_devices.api_answers import RefusedError
from edgeml_devices.api_client import ApiClient
from edgeml_devices.repository import changes as ch
from edgeml_devices.repository import metadata as md
from edgeml_devices.repository.keys import KeyFolder
from edgeml_devices.repository.remote import read_remote

from tests.integration.publish.workshop import Workshop, other_machine
from tests.integration.server_process import ServerProcess

if TYPE_CHECKING:
    from collections.abc import Iterator

NUMBERS = count(1)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    """A repository with two families: vision needs two signatures, main signs all other models."""
    folder = tmp_path_factory.mktemp("attacks")
    with ServerProcess(folder / "server") as process:
        shop = Workshop(folder / "workshop", process.url, process.admin_token)
        shop.do("repo", "init")
        for name in ("second", "third"):
            shop.do("keys", "generate", name)
        shop.do(
            "keys",
            "family",
            "vision",
            "--model",
            "ocr",
            "--key",
            "second",
            "--key",
            "third",
            "--threshold",
            2,
        )
        shop.do("publish", shop.bundle(1))
        shop.do("publish", shop.bundle(1, model="ocr"))
        yield shop


@pytest.fixture
def operator(shop: Workshop, tmp_path: Path) -> Workshop:
    """A machine with an operator's token that was stolen, and no keys."""
    token = shop.ask("tokens", "create", f"thief-{next(NUMBERS)}", "--role", "operator")["token"]
    return other_machine(shop, tmp_path / "operator", token)


def forged(shop: Workshop, role: str, *names: str, path_model: str = "kws", version: int = 0) -> bytes:
    """Give the next version of a family with an evil release, signed by these keys of the workshop."""
    keys = KeyFolder(shop.keys)
    with ApiClient(shop.url, shop.token) as client:
        state = read_remote(client, keys)
    metadata = md.next_version(state.families[role], role, datetime.now(UTC))
    md.add_release(metadata.signed, path_model, 666, b"evil", 4)
    if version:
        metadata.signed.version = version
    for name in names:
        metadata.sign(keys.signer(keys.find(name), lambda _: ""), append=True)
    return metadata.to_bytes()


def push(shop: Workshop, role: str, content: bytes) -> RefusedError:
    """Push metadata past edgeml's own checks; the server must refuse it."""
    with ApiClient(shop.url, shop.token) as client, pytest.raises(RefusedError) as caught:
        client.put_bytes(f"/v1/repository/metadata/{role}", content)
    return caught.value


def last_refusal(shop: Workshop) -> dict:
    return shop.ask("audit", "list", "--action", "refused", "--last", 1)["audit"][0]


def test_the_key_of_another_family(shop, operator):
    error = push(operator, "vision", forged(shop, "vision", "main", path_model="ocr"))
    assert error.status == 403
    row = last_refusal(shop)
    assert row["actor"].startswith("operator:")
    assert "vision" in row["detail"]["reason"]
    assert "0/2" in row["detail"]["reason"]
    assert shop.manifest_on_device(666, model="ocr") is None


def test_one_of_two_signatures(shop, operator):
    error = push(operator, "vision", forged(shop, "vision", "second", path_model="ocr"))
    assert error.status == 403
    assert "1/2" in last_refusal(shop)["detail"]["reason"]
    assert shop.manifest_on_device(1, model="ocr") is not None


def test_one_key_that_signs_twice(shop, operator):
    """Two signatures of one key, under two ids: a threshold counts keys."""
    content = json.loads(forged(shop, "vision", "second", path_model="ocr"))
    content["signatures"].append(content["signatures"][0] | {"keyid": "0" * 64})
    assert push(operator, "vision", json.dumps(content).encode()).status == 403
    content["signatures"][1]["keyid"] = content["signatures"][0]["keyid"]
    assert push(operator, "vision", json.dumps(content).encode()).status in {400, 403}


def test_a_release_of_another_familys_model(shop, operator):
    """The key is the family's own; the model is not."""
    error = push(operator, "main", forged(shop, "main", "main", path_model="ocr"))
    assert "ocr" in str(error)
    assert shop.manifest_on_device(666, model="ocr") is None


def test_metadata_of_one_family_as_anothers(shop, operator):
    error = push(operator, "vision", forged(shop, "main", "main", "second", "third"))
    assert error.status in {400, 403}
    assert shop.manifest_on_device(1, model="ocr") is not None


def test_an_older_version(shop, operator):
    with ApiClient(shop.url) as client:
        old = client.get_bytes("/v1/repository/metadata/1.main.json")
    assert push(operator, "main", old).status == 409
    for version in (1, 2, 1000):
        error = push(operator, "main", forged(shop, "main", "main", version=version))
        assert error.status == 409
        assert "the next version is" in str(error)


def test_a_release_that_changes(shop, operator):
    """Signed by the right key: a number still never changes what it stands for."""
    keys = KeyFolder(shop.keys)
    with ApiClient(shop.url, shop.token) as client:
        state = read_remote(client, keys)
    for drop in (False, True):
        metadata = md.next_version(state.families["main"], "main", datetime.now(UTC))
        del metadata.signed.targets["models/kws/1.json"]
        if not drop:
            md.add_release(metadata.signed, "kws", 1, b"evil", 4)
        metadata.sign(keys.signer(keys.find("main"), lambda _: ""))
        error = push(operator, "main", metadata.to_bytes())
        assert error.status == 403
        assert "models/kws/1.json was signed before" in last_refusal(shop)["detail"]["reason"]


def test_a_flipped_bit(shop, operator):
    content = bytearray(forged(shop, "main", "main"))
    at = content.index(b"666")
    content[at : at + 3] = b"667"
    assert push(operator, "main", bytes(content)).status == 403


def test_a_manifest_that_nobody_uploaded(shop, operator):
    assert push(operator, "main", forged(shop, "main", "main")).status == 409


@pytest.mark.parametrize("role", ["root", "targets"])
def test_an_operator_who_changes_who_signs(shop, operator, role):
    with ApiClient(shop.url, shop.token) as client:
        state = read_remote(client, KeyFolder(shop.keys))
    (change,) = ch.renew(state, [role], datetime.now(UTC))
    ch.sign([change], state, KeyFolder(shop.keys), lambda _: "")
    error = push(operator, role, change.metadata.to_bytes())
    assert error.status == 403
    assert last_refusal(shop)["detail"]["reason"] == f"{role} needs the role admin"


@pytest.mark.parametrize("role", ["snapshot", "timestamp"])
def test_somebody_who_signs_for_the_server(shop, operator, role):
    with ApiClient(shop.url) as client:
        following = json.loads(client.get_bytes("/v1/repository/metadata/timestamp.json"))
    following["signed"]["version"] += 1
    assert push(operator, role, json.dumps(following).encode()).status == 409


def test_a_viewer_who_publishes(shop, tmp_path):
    token = shop.ask("tokens", "create", "visitor", "--role", "viewer")["token"]
    viewer = other_machine(shop, tmp_path / "viewer", token, keys=("main",))
    said = viewer.refused("publish", viewer.bundle(9))
    assert "this needs the role operator, the token has viewer" in said
    row = last_refusal(shop)
    assert row["actor"] == "viewer:visitor"
    assert row["object"].startswith("PUT /v1/blobs/sha256/")
    assert push(viewer, "main", forged(shop, "main", "main")).status == 403
    assert 9 not in shop.listed()


def test_an_operator_without_keys(shop, operator):
    said = operator.refused("publish", operator.bundle(9))
    assert "main has 0 of 1 signatures" in said
    with (
        ApiClient(operator.url, operator.token) as client,
        pytest.raises(RefusedError, match="release") as caught,
    ):
        client.post("/v1/releases", {"model": "kws", "release": 9})
    assert caught.value.status in {404, 409}


def test_a_repository_is_not_made_a_second_time(shop, tmp_path):
    """An admin's token was stolen: a second init would give the fleet another root."""
    thief = Workshop(tmp_path / "thief", shop.url, shop.token)
    assert "has a repository already" in thief.refused("repo", "init")
    with ApiClient(shop.url) as client:
        root = json.loads(client.get_bytes("/v1/repository/metadata/1.root.json"))
    body = {"root": root, "targets": root, "delegated": []}
    with ApiClient(shop.url, shop.token) as client, pytest.raises(RefusedError) as caught:
        client.post("/v1/repository/init", body)
    assert caught.value.status == 409
