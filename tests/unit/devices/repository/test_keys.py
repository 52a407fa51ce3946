"""The folder of keys: protected, encrypted if asked, and of use only with both halves."""

from __future__ import annotations

import json

import pytest
from edgeml_devices.repository.keys import KeyFolder

from edgeml.errors import TrustError, UsageError
from tests.unit.devices.repository.team import no_passphrase


@pytest.fixture
def keys(tmp_path):
    return KeyFolder(tmp_path / "keys")


def mode(path):
    return oct(path.stat().st_mode & 0o777)


def test_only_the_owner_may_look_into_the_folder(keys):
    keys.generate("main")
    assert mode(keys.folder) == "0o700"
    assert mode(keys.folder / "main.pem") == "0o600"


def test_a_key_signs_what_its_public_half_verifies(keys):
    key = keys.generate("main")
    signature = keys.signer(key, no_passphrase).sign(b"a manifest")
    key.public.verify_signature(signature, b"a manifest")
    assert keys.find("main") == key
    assert keys.by_id(key.public.keyid) == key


def test_an_encrypted_key_opens_with_its_passphrase_only(keys):
    made = keys.generate("main", "correct horse")
    assert b"ENCRYPTED" in (keys.folder / "main.pem").read_bytes()
    assert keys.find("main").is_encrypted
    keys.signer(made, lambda name: {"main": "correct horse"}[name]).sign(b"x")
    with pytest.raises(TrustError, match=r"main\.pem cannot be opened: the passphrase is wrong"):
        keys.signer(made, lambda _: "battery staple")


def test_a_key_whose_private_half_is_elsewhere_is_known_and_does_not_sign(keys):
    keys.generate("root-1")
    (keys.folder / "root-1.pem").unlink()
    key = keys.find("root-1")
    assert not key.is_here
    with pytest.raises(TrustError, match=r"the private half of root-1 is not in .*; bring root-1\.pem back"):
        keys.signer(key, no_passphrase)


def test_a_private_half_that_others_may_read_is_refused(keys):
    key = keys.generate("main")
    (keys.folder / "main.pem").chmod(0o640)
    with pytest.raises(TrustError, match=r"open to others \(mode 0640\).*chmod go= .*main\.pem"):
        keys.signer(key, no_passphrase)


def test_a_folder_that_others_may_read_gets_no_keys(keys):
    keys.folder.mkdir(mode=0o755)
    with pytest.raises(TrustError, match=r"open to others \(mode 0755\)"):
        keys.generate("main")
    assert not list(keys.folder.iterdir())


def test_a_name_is_never_used_twice(keys):
    keys.generate("main")
    (keys.folder / "main.pem").unlink()  # moved offline: its public half still has the name
    with pytest.raises(UsageError, match="has a key 'main' already"):
        keys.generate("main")


@pytest.mark.parametrize("name", ["", "../main", "a/b", ".hidden", "x" * 65, "a b"])
def test_a_name_is_no_path(keys, name):
    with pytest.raises(UsageError, match="cannot be a key's name"):
        keys.generate(name)
    assert keys.find(name) is None


def test_halves_of_two_keys_are_told_apart(keys):
    keys.generate("second")
    keys.generate("third")
    (keys.folder / "second.pem").write_bytes((keys.folder / "third.pem").read_bytes())
    with pytest.raises(TrustError, match="halves of different keys"):
        keys.signer(keys.find("second"), no_passphrase)


@pytest.mark.parametrize(
    "content", ["", "{}", "[]", '{"keyid": 1}', json.dumps({"keyid": "a", "keytype": "x"})]
)
def test_a_damaged_public_half_is_named(keys, content):
    keys.generate("main")
    (keys.folder / "main.pub").write_text(content)
    with pytest.raises(TrustError, match=r"main\.pub is not the public half of a key"):
        keys.keys()


def test_a_damaged_private_half_is_named(keys):
    key = keys.generate("main")
    (keys.folder / "main.pem").write_text("-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n")
    with pytest.raises(TrustError, match=r"main\.pem cannot be opened: it is damaged"):
        keys.signer(key, no_passphrase)
