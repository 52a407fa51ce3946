"""Keys and metadata on the command line, against a real server that checks what is pushed."""

from __future__ import annotations

import hashlib

import pytest
from edgeml_devices.api_client import ApiClient

from tests.integration.publish.workshop import other_machine


def versions(shop):
    return {role["role"]: role["version"] for role in shop.ask("repo", "status")["roles"]}


def signers(shop, role):
    (row,) = [row for row in shop.ask("repo", "status")["roles"] if row["role"] == role]
    return f"{row['threshold']} of {', '.join(key['name'] for key in row['keys'])}"


def test_what_must_go_offline_is_said(process, tmp_path):
    from tests.integration.publish.workshop import Workshop

    shop = Workshop(tmp_path / "workshop", process.url, process.admin_token)
    made = shop.ask("repo", "init", "--targets-keys", "2", "--targets-threshold", "2", "--family", "audio")
    names = ["root-1", "root-2", "root-3", "targets-1", "targets-2"]
    assert made["offline"] == [str(shop.keys / f"{name}.pem") for name in names]
    assert made["stays"] == [str(shop.keys / "audio.pem")]
    with ApiClient(shop.url) as client:
        root = client.get_bytes("/v1/repository/metadata/1.root.json")
    assert made["root_sha256"] == hashlib.sha256(root).hexdigest()
    assert signers(shop, "root") == "2 of root-1, root-2, root-3"
    assert signers(shop, "targets") == "2 of targets-1, targets-2"
    assert made["root_sha256"] in shop.do("tokens", "join", "--label", "site=a")


def test_every_key_is_replaced_and_a_device_of_the_first_day_follows(own):
    own.do("publish", own.bundle(1))
    assert own.manifest_on_device(1) is not None
    for key in ("root-1", "root-2", "root-3", "targets-1", "main", "online"):
        own.do("keys", "rotate", key)
        assert own.manifest_on_device(1) is not None, key
    assert signers(own, "root") == "2 of root-1.2, root-2.2, root-3.2"
    assert signers(own, "main") == "1 of main.2"
    for file in own.keys.glob("*.pem"):
        if not file.stem.endswith(".2"):
            file.unlink()
    own.do("publish", own.bundle(2))
    assert own.manifest_on_device(2) is not None
    assert own.manifest_on_device(2, device="new device") is not None
    assert own.do("keys", "rotate", "root-1.2").endswith("what root-1.2 signs is refused from here on\n")
    assert signers(own, "root") == "2 of root-2.2, root-3.2, root-1.3"


def test_two_people_sign_on_two_machines(own, tmp_path):
    second = other_machine(own, tmp_path / "second")
    second.do("keys", "generate", "second")
    (own.keys / "second.pub").write_bytes((second.keys / "second.pub").read_bytes())
    own.do("keys", "generate", "third")
    made = (
        "keys",
        "family",
        "audio",
        "--model",
        "kws",
        "--key",
        "second",
        "--key",
        "third",
        "--threshold",
        2,
    )
    assert "audio has 1 of 2 signatures; may sign, too: second" in own.refused(*made)
    # whoever has one of the family's keys has to sign its first metadata, too
    to_sign = tmp_path / "to-sign"
    assert "1 of 2 signatures; may sign, too: second" in own.do(*made, "--output", to_sign)
    assert "audio has 1 of 2" in own.refused("repo", "push", to_sign)
    assert "audio, version 1" in second.do("repo", "sign", to_sign / "1.audio.json", "--key", "second")
    own.do("repo", "push", to_sign)
    assert signers(own, "audio") == "2 of second, third"
    # and each release
    bundle = own.bundle(1)
    assert "audio has 1 of 2 signatures; may sign, too: second" in own.refused("publish", bundle)
    waiting = own.ask("publish", bundle, "--output", tmp_path / "release")
    assert waiting["status"] == "unsigned"
    assert own.listed() == []
    assert "models/kws/1.json" in second.do("repo", "sign", waiting["to_sign"], "--key", "second")
    own.do("repo", "push", waiting["to_sign"])
    assert own.ask("publish", bundle)["status"] == "known"
    assert own.listed() == [1]
    assert own.manifest_on_device(1) is not None


def test_a_model_moves_to_another_family_with_its_releases(own, tmp_path):
    own.do("publish", own.bundle(1))
    own.do("publish", own.bundle(1, model="ocr"))
    own.do("keys", "family", "audio", "--model", "kws")
    assert own.manifest_on_device(1) is not None
    other = other_machine(own, tmp_path / "other", keys=("main",))
    assert "audio has 0 of 1" in other.refused("publish", other.bundle(2))
    other.do("publish", other.bundle(2, model="ocr"))
    own.do("publish", own.bundle(2))
    assert own.manifest_on_device(2, model="ocr") is not None
    assert own.manifest_on_device(2) is not None
    families = {one["family"]: one["models"] for one in own.ask("repo", "status")["families"]}
    assert families == {"audio": ["kws"], "main": ["*"]}


def test_a_revoked_key_signs_nothing_more(own, tmp_path):
    own.do("keys", "generate", "second")
    own.do("keys", "family", "main", "--key", "main", "--key", "second", "--threshold", 1)
    second = other_machine(own, tmp_path / "second", keys=("second",))
    second.do("publish", second.bundle(1))
    own.do("keys", "revoke", "second")
    assert "main has 0 of 1 signatures; may sign, too: main" in second.refused("publish", second.bundle(2))
    assert own.manifest_on_device(1) is not None
    assert (
        "main needs 1 keys and would have 0: replace the key instead"
        in own.run("keys", "revoke", "main").stderr
    )


def test_the_floor_is_signed_and_shown(shop):
    shop.do("repo", "floor", shop.model, 3)
    (family,) = [one for one in shop.ask("repo", "status")["families"] if one["family"] == "main"]
    assert family["floors"][shop.model] == 3
    assert "it only rises" in shop.run("repo", "floor", shop.model, 2).stderr


def test_what_is_renewed_says_the_same(shop):
    shop.do("publish", shop.bundle(1))
    before = versions(shop)
    shop.do("repo", "renew", "root", "targets", "main")
    after = versions(shop)
    assert [after[role] - before[role] for role in ("root", "targets", "main")] == [1, 1, 1]
    assert shop.manifest_on_device(1) is not None


def test_encrypted_keys_need_their_passphrase(process, tmp_path, monkeypatch):
    from tests.integration.publish.workshop import Workshop

    class Encrypted(Workshop):
        passphrase = "correct horse"  # noqa: S105 - of a test

        @property
        def environment(self):
            return super().environment | {"EDGEML_KEY_PASSPHRASE": self.passphrase}

    shop = Encrypted(tmp_path / "workshop", process.url, process.admin_token)
    shop.do("repo", "init", "--encrypt")
    assert {key["encrypted"] for key in shop.ask("keys", "list")["keys"]} == {True}
    assert not any(b"BEGIN PRIVATE KEY" in file.read_bytes() for file in shop.keys.glob("*.pem"))
    shop.do("publish", shop.bundle(1))
    shop.passphrase = "battery staple"  # noqa: S105 - as above
    assert "the passphrase is wrong" in shop.refused("publish", shop.bundle(2))
    shop.passphrase = ""
    assert "nobody is there to ask: set EDGEML_KEY_PASSPHRASE" in shop.refused("publish", shop.bundle(2))


def test_an_init_that_was_cut_off_goes_on_with_the_same_keys(process, tmp_path):
    from tests.integration.publish.workshop import Workshop

    stranger = Workshop(tmp_path / "workshop", process.url, process.admin_token)
    stranger.do("keys", "generate", "root-1")
    kept = (stranger.keys / "root-1.pem").read_bytes()
    stranger.do("repo", "init")
    assert (stranger.keys / "root-1.pem").read_bytes() == kept


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("keys", "rotate", "mian"), "no key is called 'mian'; there are: main, root-1"),
        (("keys", "family", "vision"), "vision is new: which models does it sign?"),
        (("keys", "family", "root", "--model", "x"), "'root' cannot be a family's name"),
        (("keys", "family", "vision", "--model", "x", "--key", "nobody"), "has no nobody.pub"),
        (("repo", "renew", "mian"), "no role 'mian'; there are: root, targets, main"),
        (("repo", "renew", "timestamp"), "the server renews it by itself"),
    ],
)
def test_mistakes_are_named(shop, arguments, says):
    result = shop.run(*arguments)
    assert result.exit_code == 2
    assert says in result.stderr
