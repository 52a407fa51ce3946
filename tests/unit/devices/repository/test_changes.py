"""Changes of who signs what, as a stock python-tuf client follows them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from edgeml_devices.repository import changes as ch
from edgeml_devices.repository import metadata as md
from edgeml_devices.tuf_words import FLOOR_FIELD
from tuf.api.exceptions import RepositoryError

from edgeml.errors import TrustError, UsageError
from tests.unit.devices.repository.simulated_server import RefusedPushError
from tests.unit.devices.repository.team import Team, no_passphrase, target_of

KWS_1 = "models/kws/1.json"


@pytest.fixture
def team(tmp_path):
    return Team(tmp_path)


@pytest.fixture
def device(tmp_path):
    return tmp_path / "device"


def keyid(team, name):
    return team.keys.find(name).public.keyid


def new_key(team, name):
    return team.keys.generate(name).public


def test_a_stock_client_downloads_a_release(team, device):
    team.publish("kws", 1, b'{"name": "kws"}')
    assert target_of(team, device, KWS_1) == b'{"name": "kws"}'
    assert target_of(team, device, "models/kws/2.json") is None


# --- families


def test_a_family_signs_its_own_models_only(team, device):
    team.apply(ch.set_family(team.state(), "vision", ["ocr"], signers(team, "vision"), team.now))
    with pytest.raises(TrustError, match="vision has 0 of 1"):
        publish_as(team, "ocr", team.without("vision"))
    publish_as(team, "ocr", team.without("main"))
    assert target_of(team, device, "models/ocr/1.json") == b"{}"


def test_what_a_foreign_family_lists_is_not_found(team, device):
    team.apply(ch.set_family(team.state(), "vision", ["ocr"], signers(team, "vision"), team.now))
    state = team.state()
    metadata = md.next_version(state.families["main"], "main", team.now)
    md.add_release(metadata.signed, "ocr", 1, b"{}", 0)
    team.apply([ch.Change("main", metadata)])
    assert target_of(team, device, "models/ocr/1.json") is None


def test_releases_go_over_to_a_models_new_family(team, device):
    team.publish("kws", 1, b"one")
    team.publish("ocr", 1, b"two")
    made = ch.set_family(team.state(), "audio", ["kws"], signers(team, "audio"), team.now)
    assert [change.role for change in team.apply(made)] == ["targets", "audio"]
    assert target_of(team, device, KWS_1) == b"one"
    assert target_of(team, device, "models/ocr/1.json") == b"two"
    team.publish("kws", 2, b"three")
    assert target_of(team, device, "models/kws/2.json") == b"three"


def test_a_family_drops_what_another_took_over_once_that_is_listed_there(team, device):
    team.publish("kws", 1, b"one")
    team.publish("ocr", 1, b"two")
    made = ch.set_family(team.state(), "audio", ["kws"], signers(team, "audio"), team.now)
    ch.sign(made, team.state(), team.keys, no_passphrase)
    targets, audio = ch.in_order(made, team.state())
    team.server.push_all([targets])
    assert list(ch.next_of_family(team.state(), "main", team.now).signed.targets) == [
        KWS_1,
        "models/ocr/1.json",
    ]
    team.server.push_all([audio])
    team.apply(ch.renew(team.state(), ["main"], team.now))
    assert list(team.state().families["main"].signed.targets) == ["models/ocr/1.json"]
    assert target_of(team, device, KWS_1) == b"one"


def test_a_family_that_was_cut_off_between_two_pushes_is_set_again(team, device):
    team.publish("kws", 1, b"one")
    made = ch.set_family(team.state(), "audio", ["kws"], signers(team, "audio"), team.now)
    ch.sign(made, team.state(), team.keys, no_passphrase)
    team.server.push_all([change for change in made if change.role == "targets"])
    assert team.state().problems == {"audio": "it was delegated and never signed"}
    again = ch.set_family(
        team.state(), "audio", [], md.signers_of(team.state().targets.signed, "audio"), team.now
    )
    team.apply(again)
    assert team.state().problems == {}
    assert target_of(team, device, KWS_1) == b"one"


def test_a_model_leaves_its_family_for_another(team, device):
    team.apply(ch.set_family(team.state(), "vision", ["ocr", "detector"], signers(team, "vision"), team.now))
    team.publish("ocr", 1, b"one")
    team.apply(ch.set_family(team.state(), "text", ["ocr"], signers(team, "text"), team.now))
    models = {name: md.family_models(role) for name, role in md.families(team.state().targets.signed).items()}
    assert models == {"vision": ["detector"], "text": ["ocr"], "main": ["*"]}
    assert target_of(team, device, "models/ocr/1.json") == b"one"


def test_a_family_without_models_goes(team):
    team.apply(ch.set_family(team.state(), "vision", ["ocr"], signers(team, "vision"), team.now))
    team.apply(ch.set_family(team.state(), "text", ["ocr"], signers(team, "text"), team.now))
    assert list(md.families(team.state().targets.signed)) == ["text", "main"]


def test_a_family_keeps_models_and_floors_when_it_gets_more(team):
    team.publish("kws", 5)
    team.apply(ch.set_family(team.state(), "audio", ["kws"], signers(team, "audio"), team.now))
    team.apply(ch.raise_floor(team.state(), "kws", 4, team.now))
    same = md.signers_of(team.state().targets.signed, "audio")
    team.apply(ch.set_family(team.state(), "audio", ["wake"], same, team.now))
    targets = team.state().targets.signed
    assert md.family_models(md.families(targets)["audio"]) == ["kws", "wake"]
    assert md.floor(targets, "kws") == 4


def test_a_floor_goes_with_its_model_to_another_family(team):
    team.apply(ch.raise_floor(team.state(), "kws", 4, team.now))
    for family in ("audio", "speech"):  # audio is left without models, and goes
        team.apply(ch.set_family(team.state(), family, ["kws"], signers(team, family), team.now))
        targets = team.state().targets.signed
        assert md.families(targets)[family].unrecognized_fields == {FLOOR_FIELD: {"kws": 4}}
        assert FLOOR_FIELD not in md.families(targets)["main"].unrecognized_fields
    team.apply(ch.raise_floor(team.state(), "ocr", 2, team.now))
    assert md.floors(team.state().targets.signed) == {"kws": 4, "ocr": 2}


@pytest.mark.parametrize("name", ["root", "targets", "snapshot", "timestamp", "../x", "a/b", "", ".hidden"])
def test_a_family_is_not_called_like_a_role_or_a_path(team, name):
    with pytest.raises(UsageError, match="cannot be a family's name"):
        ch.set_family(team.state(), name, ["kws"], signers(team, "k"), team.now)


# --- thresholds


def test_one_of_two_signatures_is_refused_here_and_by_the_server(tmp_path):
    team = Team(tmp_path, targets_keys=2, targets_threshold=2)
    made = ch.raise_floor(team.state(), "kws", 3, team.now)
    state, alone = team.state(), team.without("targets-2")
    ch.sign(made, state, alone, no_passphrase)
    with pytest.raises(TrustError, match=r"targets has 1 of 2 signatures; may sign, too: targets-2"):
        ch.require_signed(made, state)
    with pytest.raises(RefusedPushError, match="signed by 1/2"):
        team.server.push_all(made)


def test_metadata_is_signed_by_two_people_on_two_machines(tmp_path, device):
    team = Team(tmp_path, targets_keys=2, targets_threshold=2)
    made = ch.raise_floor(team.state(), "kws", 3, team.now)
    ch.sign(made, team.state(), team.without("targets-2"), no_passphrase)
    (file,) = ch.write_changes(made, tmp_path / "to-sign")
    assert file.name == "2.targets.json"
    brought = ch.read_change(file)
    second = team.keys.signer(team.keys.find("targets-2"), no_passphrase)
    brought.metadata.sign(second, append=True)
    ch.require_signed([brought], team.state())
    team.server.push(brought.role, brought.metadata.to_bytes())
    team.publish("kws", 3)
    assert target_of(team, device, "models/kws/3.json") == b"{}"


# --- keys that change


def test_a_client_with_the_first_root_follows_three_rotations(team, device):
    team.publish("kws", 1, b"one")
    assert target_of(team, device, KWS_1) == b"one"
    for number in (1, 2, 3):
        key = new_key(team, f"root-{number}.2")
        team.apply(ch.replace_key(team.state(), keyid(team, f"root-{number}"), key, team.now))
    assert team.state().root.signed.version == 4
    names = [
        key.unrecognized_fields["edgeml_name"] for key in md.signers_of(team.state().root.signed, "root").keys
    ]
    assert sorted(names) == ["root-1.2", "root-2.2", "root-3.2"]
    assert target_of(team, device, KWS_1) == b"one"
    team.publish("kws", 2, b"two")
    assert target_of(team, device, "models/kws/2.json") == b"two"
    assert target_of(team, team.folder / "new device", KWS_1) == b"one"


def test_a_new_root_must_hold_under_the_old_keys_as_well(team):
    made = ch.replace_key(team.state(), keyid(team, "root-1"), new_key(team, "root-1.2"), team.now)
    only_new_majority = team.without("root-1", "root-2")
    state = team.state()
    ch.sign(made, state, only_new_majority, no_passphrase)
    assert len(made[0].metadata.signatures) == 2  # root-1.2 and root-3: enough for the new root
    with pytest.raises(TrustError, match="root has 1 of 2 signatures"):
        ch.require_signed(made, state)
    with pytest.raises(RefusedPushError):
        team.server.push_all(made)


def test_a_rotated_family_never_shows_devices_what_does_not_hold(team, device):
    """The family's metadata, signed by both keys, goes first; a client may look between the two pushes."""
    team.publish("kws", 1, b"one")
    state = team.state()
    made = ch.replace_key(state, keyid(team, "main"), new_key(team, "main.2"), team.now)
    ch.sign(made, state, team.keys, no_passphrase)
    ordered = ch.in_order(made, state)
    assert [change.role for change in ordered] == ["main", "targets"]
    for change in ordered:
        team.server.push(change.role, change.metadata.to_bytes())
        assert target_of(team, device, KWS_1) == b"one"


def test_a_rotated_targets_key_never_shows_devices_what_does_not_hold(team, device):
    team.publish("kws", 1, b"one")
    state = team.state()
    made = ch.replace_key(state, keyid(team, "targets-1"), new_key(team, "targets-1.2"), team.now)
    ch.sign(made, state, team.keys, no_passphrase)
    ordered = ch.in_order(made, state)
    assert [change.role for change in ordered] == ["targets", "root"]
    for change in ordered:
        team.server.push(change.role, change.metadata.to_bytes())
        assert target_of(team, device, KWS_1) == b"one"


def test_a_lost_family_key_is_replaced_without_it(team, device):
    team.publish("kws", 1, b"one")
    state, rest = team.state(), team.without("main")
    new = rest.generate("main.2").public
    ordered = team.apply(ch.replace_key(state, keyid(team, "main"), new, team.now), rest)
    assert [change.role for change in ordered] == ["targets", "main"]
    assert target_of(team, device, KWS_1) == b"one"


def test_what_a_replaced_family_key_signs_is_refused(team, device):
    team.publish("kws", 1, b"one")
    thief = team.without()
    team.apply(ch.replace_key(team.state(), keyid(team, "main"), new_key(team, "main.2"), team.now))
    state = team.state()
    metadata = md.next_version(state.families["main"], "main", team.now)
    md.add_release(metadata.signed, "kws", 2, b"evil", 0)
    metadata.sign(thief.signer(thief.find("main"), no_passphrase))
    with pytest.raises(RefusedPushError, match="signed by 0/1"):
        team.server.push("main", metadata.to_bytes())
    # nor does a device take it from a server that does not look
    team.server._store("main", metadata, metadata.to_bytes())
    team.server._sign_current()
    with pytest.raises(RepositoryError):
        target_of(team, device, "models/kws/2.json")


def test_a_rotation_that_was_cut_off_with_the_old_key_lost_goes_on(team, device):
    team.publish("kws", 1, b"one")
    state, rest = team.state(), team.without("main")
    made = ch.replace_key(state, keyid(team, "main"), rest.generate("main.2").public, team.now)
    ch.sign(made, state, rest, no_passphrase)
    targets = next(change for change in made if change.role == "targets")
    team.server.push("targets", targets.metadata.to_bytes())
    assert team.state().problems == {"main": "0 of 1 signatures hold"}
    team.apply(ch.renew(team.state(), ["main"], team.now), rest)
    assert team.state().problems == {}
    assert target_of(team, device, KWS_1) == b"one"


def test_one_of_a_familys_keys_is_revoked(team, device):
    both = md.Signers((team.keys.find("main").public, new_key(team, "second")), 1)
    team.apply(ch.set_family(team.state(), "main", [], both, team.now))
    team.publish("kws", 1, b"one")
    team.apply(ch.replace_key(team.state(), keyid(team, "main"), None, team.now))
    assert target_of(team, device, KWS_1) == b"one"
    with pytest.raises(TrustError, match="main has 0 of 1"):
        publish_as(team, "kws", team.without("second"), release=2)


def test_the_only_key_of_a_role_is_not_revoked(team):
    with pytest.raises(UsageError, match="main needs 1 keys and would have 0"):
        ch.replace_key(team.state(), keyid(team, "main"), None, team.now)


def test_the_servers_keys_are_replaced(team, device):
    from securesystemslib.signer import CryptoSigner

    team.publish("kws", 1, b"one")
    assert target_of(team, device, KWS_1) == b"one"
    fresh = {role: CryptoSigner.generate_ed25519() for role in ("snapshot", "timestamp")}
    made = ch.replace_online_keys(
        team.state(), {role: signer.public_key for role, signer in fresh.items()}, team.now
    )
    team.server.online = fresh
    team.apply(made)
    assert team.state().problems == {}
    assert target_of(team, device, KWS_1) == b"one"


# --- floors and renewal


def test_a_floor_only_rises(team):
    team.apply(ch.raise_floor(team.state(), "kws", 5, team.now))
    assert md.floor(team.state().targets.signed, "kws") == 5
    assert md.floor(team.state().targets.signed, "ocr") == 0
    with pytest.raises(UsageError, match="it only rises"):
        ch.raise_floor(team.state(), "kws", 4, team.now)


def test_what_has_expired_is_renewed(team, device):
    team.publish("kws", 1, b"one")
    long_ago = datetime.now(UTC) - timedelta(days=400)
    team.apply(ch.renew(team.state(), ["targets", "main"], long_ago))
    with pytest.raises(RepositoryError, match="expired"):
        target_of(team, device, KWS_1)
    team.apply(ch.renew(team.state(), ["targets", "main"], datetime.now(UTC)))
    assert target_of(team, device, KWS_1) == b"one"


@pytest.mark.parametrize(
    ("role", "message"), [("timestamp", "renews it by itself"), ("mian", "no role 'mian'")]
)
def test_what_is_not_signed_here_is_not_renewed_here(team, role, message):
    with pytest.raises(UsageError, match=message):
        ch.renew(team.state(), [role], team.now)


def signers(team, name):
    return md.Signers((new_key(team, name),), 1)


def publish_as(team, model, keys, release=1):
    state = team.state()
    family = md.require_family(state.targets.signed, model).name
    metadata = md.next_version(state.families[family], family, team.now)
    md.add_release(metadata.signed, model, release, b"{}", 0)
    import hashlib

    team.server.manifests[f"models/{model}/{hashlib.sha256(b'{}').hexdigest()}.{release}.json"] = b"{}"
    team.apply([ch.Change(family, metadata)], keys)
