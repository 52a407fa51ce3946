"""What a publisher believes of a server that was taken over: nothing that would get a lie signed."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from edgeml_devices.repository import changes as ch
from edgeml_devices.repository import metadata as md
from edgeml_devices.repository.state import first_root, parse_metadata, pin_root, read_state
from tuf.api.metadata import Metadata

from edgeml.errors import TrustError
from tests.unit.devices.repository.team import Team, no_passphrase


@pytest.fixture
def team(tmp_path):
    team = Team(tmp_path)
    team.publish("kws", 1, b"one")
    return team


def put(team, role, metadata):
    """Let the server give out whatever it likes: it has its own keys, and checks nothing."""
    team.server._store(role, metadata, metadata.to_bytes())
    team.server._sign_current()


def test_the_first_contact_is_told(team, tmp_path):
    trust = tmp_path / "trust"
    assert read_state(team.server.fetch, trust).is_first_contact
    assert not read_state(team.server.fetch, trust).is_first_contact


def test_a_release_that_the_familys_key_did_not_sign_is_not_taken_over(team):
    metadata = md.next_version(team.state().families["main"], "main", team.now)
    md.add_release(metadata.signed, "kws", 2, b"evil", 0)
    metadata.sign(team.keys.signer(team.keys.find("targets-1"), no_passphrase))
    put(team, "main", metadata)
    with pytest.raises(TrustError, match="main version 3 is not to be trusted: 0 of 1 signatures hold"):
        team.state()


def test_an_older_version_would_hide_releases(team):
    before = team.server.roles["main"]
    team.publish("kws", 2, b"two")
    team.state()
    put(team, "main", before)
    with pytest.raises(TrustError, match="the server has main version 2, this machine saw 3"):
        team.state()


def test_another_content_of_the_same_version_is_seen(team):
    """The family's key signed two versions 3: a release would vanish from one of them."""
    state = team.state()
    for content in (b"two", b"other"):
        metadata = md.next_version(state.families["main"], "main", team.now)
        md.add_release(metadata.signed, "kws", 2, content, 0)
        metadata.sign(team.keys.signer(team.keys.find("main"), no_passphrase))
        put(team, "main", metadata)
        if content == b"two":
            team.state()
    with pytest.raises(TrustError, match="main version 3 is not the one this machine saw"):
        team.state()


def test_one_familys_metadata_does_not_pass_for_anothers(team):
    """One person's key signs for two families; the server swaps their metadata."""
    same = md.Signers((team.keys.find("main").public,), 1)
    team.apply(ch.set_family(team.state(), "vision", ["ocr"], same, team.now))
    swapped = Metadata(team.server.roles["main"].signed)
    swapped.signed.version = 9
    swapped.sign(team.keys.signer(team.keys.find("main"), no_passphrase))
    put(team, "vision", swapped)
    with pytest.raises(TrustError, match="another role's metadata as vision's"):
        team.state()


def test_a_root_of_other_keys_is_refused(team, tmp_path):
    foreign = Team(tmp_path / "foreign")
    foreign.state()
    metadata = md.next_version(foreign.server.root, "root", team.now)
    for name in ("root-1", "root-2"):
        metadata.sign(foreign.keys.signer(foreign.keys.find(name), no_passphrase), append=True)
    team.state()
    team.server.files["2.root.json"] = metadata.to_bytes()
    with pytest.raises(TrustError, match="root version 2 is not to be trusted: 0 of 2 signatures hold"):
        team.state()


def test_a_root_in_anothers_place_is_refused(team):
    team.state()
    team.server.files["2.root.json"] = team.server.files["1.root.json"]
    with pytest.raises(TrustError, match=r"2\.root\.json says that it is version 1"):
        team.state()


def test_a_timestamp_of_a_foreign_key_is_told_and_stops_nothing(team):
    """Whoever lost the server's keys must be able to give it others, which needs root only."""
    team.state()
    team.server.timestamp.sign(team.keys.signer(team.keys.find("main"), no_passphrase))
    team.server.files["timestamp.json"] = team.server.timestamp.to_bytes()
    assert team.state().problems == {"timestamp": "0 of 1 signatures hold"}


def test_a_server_without_a_repository_is_told(tmp_path):
    with pytest.raises(TrustError, match="the server has no repository yet; make one: edgeml repo init"):
        read_state(lambda _: None, tmp_path)


def test_a_file_that_is_listed_and_missing_is_told(team):
    del team.server.files["1.targets.json"]
    with pytest.raises(TrustError, match=r"lacks 1\.targets\.json; restore the server's back-up"):
        team.state()


@pytest.mark.parametrize("content", [b"", b"<html>", b"{}", b"[1]", b"\xff\xfe", b" " * 5_000_001])
def test_what_is_no_metadata_is_refused(content):
    with pytest.raises(TrustError, match="metadata"):
        parse_metadata(content, "the file")


def test_metadata_of_another_kind_is_refused(team):
    team.server.files["timestamp.json"] = team.server.files["1.root.json"]
    with pytest.raises(TrustError, match="timestamp: metadata of root in its place"):
        team.state()


def test_the_first_root_leads_to_the_one_that_is_trusted(team):
    assert first_root(team.server.fetch, team.state()) == team.server.files["1.root.json"]
    old, new = team.keys.find("root-1").public, team.keys.generate("root-4").public
    team.apply(ch.replace_key(team.state(), old.keyid, new, team.now))
    assert first_root(team.server.fetch, team.state()) == team.server.files["1.root.json"]


def test_another_first_root_is_given_to_no_device(team, tmp_path):
    """Sound in itself, of a repository that the server's owner made."""
    state, foreign = team.state(), Team(tmp_path / "foreign")
    team.server.files["1.root.json"] = foreign.server.files["1.root.json"]
    with pytest.raises(TrustError, match="does not lead to the root that this machine trusts"):
        first_root(team.server.fetch, state)


def test_a_root_that_was_made_here_is_not_replaced_by_the_servers(tmp_path):
    mine, foreign = Team(tmp_path / "mine"), Team(tmp_path / "foreign")
    pin_root(mine.server.files["1.root.json"], mine.keys.trust)
    with pytest.raises(TrustError, match="targets version 1 is not to be trusted"):
        read_state(foreign.server.fetch, mine.keys.trust)


def test_processes_that_read_at_the_same_time_do_not_take_each_other_for_rollbacks(team):
    """One that was answered earlier must not compare that with what the other has remembered since."""
    answered = threading.Event()

    def slow_fetch(name):
        content = team.server.fetch(name)
        if name == "timestamp.json":
            answered.set()
            time.sleep(0.1)
        return content

    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(read_state, slow_fetch, team.keys.trust)
        assert answered.wait(60)
        team.publish("kws", 2, b"two")
        assert team.state().families["main"].signed.version == 3
        assert slow.result().families["main"].signed.version == 2
