"""What a server that was taken over, or somebody on the way, tries on a device: it runs what it ran."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from edgeml_devices.agent import machine
from edgeml_devices.agent.blobs import BlobStore
from edgeml_devices.agent.deployment import Deployment
from edgeml_devices.agent.failures import StepFailedError
from edgeml_devices.agent.fetch import Fetcher, Limits
from edgeml_devices.agent.home import Home
from edgeml_devices.agent.origins import SignedOrigin
from edgeml_devices.agent.sources import BlobStream, FolderSource
from edgeml_devices.agent.trust import Trust
from edgeml_devices.messages import Reason, Result, State
from tuf.api.metadata import Metadata, MetaFile, Root

from edgeml.bundle import open_bundle
from edgeml.errors import TrustError
from edgeml.manifest import FileEntry
from edgeml.manifest_json import dumps, loads
from tests.faults.killed_machine import MODEL, World, running
from tests.integration.agent.bundles import VARIANT
from tests.integration.agent.tiny_repository import TinyRepository


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "world")


@pytest.fixture
def home(world: World, tmp_path: Path) -> Home:
    """A device that runs release 1."""
    home = world.new_home(tmp_path / "home")
    install(world, home, 1)
    assert running(home) == 1
    return home


def install(world: World, home: Home, release: int, attempt: int = 1, **tools: object) -> Deployment:
    deployment = world.deployment(home, release, attempt)
    for name, value in tools.items():
        object.__setattr__(deployment.tools, name, value)
    machine.recover(deployment)
    machine.run(deployment)
    return deployment


def refused(world: World, home: Home, reason: Reason, release: int = 2) -> str:
    """Try to install; the device must say why not, and run release 1 as before."""
    deployment = install(world, home, release)
    record = deployment.record
    assert (record.result, record.reason) == (Result.FAILED_NO_STATE_CHANGE, reason), record
    assert running(home) == 1
    assert world.why_unsafe(home) is None
    assert record.state is State.IDLE
    return record.detail


# --- content


def test_a_tampered_blob(world: World, home: Home) -> None:
    for blob in (world.repository.folder / "blobs" / "sha256").iterdir():
        content = bytearray(blob.read_bytes())
        content[len(content) // 2] ^= 1
        blob.write_bytes(content)
    shutil.rmtree(home.blobs)
    refused(world, home, Reason.HASH)


def test_a_tampered_manifest(world: World, home: Home) -> None:
    for path in (world.repository.folder / "targets" / "models" / MODEL).glob("*.2.json"):
        path.write_bytes(path.read_bytes().replace(b'"cosine_min"', b'"cosine_mim"'))
    refused(world, home, Reason.HASH)


def test_a_blob_without_end(world: World, home: Home) -> None:
    """More than the manifest says: ended at once, and nothing of it is kept."""

    class Endless(FolderSource):
        sent = 0

        @contextmanager
        def blob(self, entry: FileEntry, start: int) -> Iterator[BlobStream]:
            def drip() -> Iterator[bytes]:
                while True:
                    self.sent += 4096
                    yield b"\0" * 4096

            del entry
            yield BlobStream(start, drip())

    source = Endless(world.repository.folder)
    entry = FileEntry("x", 100_000, "0" * 64)
    store = BlobStore(home.path / "elsewhere")
    with pytest.raises(StepFailedError, match="more than the 100000 bytes") as error:
        Fetcher(store, Limits(3), lambda: None, time.sleep).fetch(source, entry)
    assert error.value.reason is Reason.HASH
    assert source.sent <= 110_000
    assert store.part(entry.sha256).stat().st_size == 0


def test_metadata_without_end(world: World, home: Home) -> None:
    timestamp = world.repository.folder / "metadata" / "timestamp.json"
    timestamp.write_bytes(b" " * 10_000_000)
    assert "without end" in refused(world, home, Reason.HASH)


@pytest.mark.parametrize(
    "path", ["../../../../outside", "/etc/outside", "variants/../../../outside", "a\\..\\b"]
)
def test_a_manifest_whose_paths_lead_out(world: World, home: Home, path: str) -> None:
    manifest = loads((home.model(MODEL).current / "manifest.json").read_bytes())
    variant = manifest.variants[0]
    evil = replace(variant, files=(replace(variant.files[0], path=path), *variant.files[1:]))
    content = dumps(replace(manifest, release=4, variants=(evil,)))
    world.repository.add_target(MODEL, 4, content, MODEL)
    refused(world, home, Reason.MANIFEST, 4)
    assert not list(home.path.parent.rglob("outside"))


def test_a_manifest_signed_for_another_name_or_number(world: World, home: Home) -> None:
    content = (home.model(MODEL).current / "manifest.json").read_bytes()
    world.repository.add_target(MODEL, 5, content, MODEL)
    assert "it says times 1" in refused(world, home, Reason.MANIFEST, 5)


def test_a_number_used_for_another_manifest(world: World, home: Home) -> None:
    content = (home.model(MODEL).current / "manifest.json").read_bytes()
    world.repository.add_target(MODEL, 1, content.replace(b"  ", b" "), MODEL)
    deployment = install(world, home, 1, attempt=2)
    assert deployment.record.reason == Reason.MANIFEST
    assert running(home) == 1
    assert world.why_unsafe(home) is None


# --- metadata


def test_an_old_timestamp(world: World, home: Home) -> None:
    """Freeze: the device has seen a newer one."""
    timestamp = world.repository.folder / "metadata" / "timestamp.json"
    old = timestamp.read_bytes()
    world.repository.write_all()
    install(world, home, 1, attempt=2)
    timestamp.write_bytes(old)
    refused(world, home, Reason.METADATA_ROLLBACK)


def test_an_old_timestamp_where_the_cache_was_lost(world: World, home: Home) -> None:
    """What was issued before the newest that was ever seen is refused without any cache."""
    timestamp = world.repository.folder / "metadata" / "timestamp.json"
    old = timestamp.read_bytes()
    world.repository.write_all()
    install(world, home, 1, attempt=2)
    timestamp.write_bytes(old)
    shutil.rmtree(home.trust / "metadata")
    assert "was issued" in refused(world, home, Reason.METADATA_ROLLBACK)


def test_expired_metadata_stop_installs_and_not_what_runs(world: World, home: Home) -> None:
    world.repository.timestamp.expires = world.repository.now - timedelta(hours=1)
    world.repository.write_all()
    refused(world, home, Reason.METADATA_EXPIRED)


def test_a_release_below_the_floor(world: World, home: Home) -> None:
    world.repository.set_floor(MODEL, MODEL, 3)
    assert "floor 3" in refused(world, home, Reason.BELOW_FLOOR)


def test_a_floor_that_was_lowered_again(world: World, home: Home) -> None:
    """The highest floor that was ever signed stays."""
    world.repository.set_floor(MODEL, MODEL, 3)
    install(world, home, 2)
    world.repository.set_floor(MODEL, MODEL, 1)
    deployment = install(world, home, 2, attempt=2)
    assert deployment.record.reason == Reason.BELOW_FLOOR


def test_a_floor_that_rises_while_a_tested_release_waits(world: World, home: Home) -> None:
    deployment = world.deployment(home, 2)
    floor = 0

    def rising(_: Path, __: str, ___: object) -> object:
        nonlocal floor
        floor = 3
        return world_selftest(_, __, ___)

    world_selftest = deployment.tools.selftest
    object.__setattr__(deployment.tools, "selftest", rising)
    object.__setattr__(deployment.tools, "floor", lambda _: floor)
    machine.recover(deployment)
    machine.run(deployment)
    assert deployment.record.reason == Reason.BELOW_FLOOR
    assert running(home) == 1


def test_a_withdrawn_release(world: World, home: Home) -> None:
    world.repository.withdraw(MODEL, 2)
    refused(world, home, Reason.UNKNOWN_RELEASE)


def test_mix_and_match(world: World, home: Home) -> None:
    """A family's old metadata under the number that the new snapshot names."""
    repository = world.repository
    old = (repository.folder / "metadata" / f"{repository.families[MODEL].version}.{MODEL}.json").read_bytes()
    repository.families[MODEL].version += 1
    repository.write_all()
    (repository.folder / "metadata" / f"{repository.families[MODEL].version}.{MODEL}.json").write_bytes(old)
    refused(world, home, Reason.METADATA_ROLLBACK)


def test_a_snapshot_that_forgets_a_family(world: World, home: Home) -> None:
    repository = world.repository
    repository.snapshot.version += 1
    repository.snapshot.meta = {"targets.json": MetaFile(repository.targets.version)}
    repository._write("snapshot", repository.snapshot)
    repository.timestamp.version += 1
    repository.timestamp.snapshot_meta = MetaFile(repository.snapshot.version)
    repository.write_timestamp()
    refused(world, home, Reason.SIGNATURE)


def test_a_root_signed_by_one_of_two(world: World, home: Home) -> None:
    repository = world.repository
    repository.root.version = 2
    repository.write_root(signers=1)
    refused(world, home, Reason.SIGNATURE)


def test_metadata_signed_by_no_one(world: World, home: Home) -> None:
    repository = world.repository
    place = repository.folder / "metadata" / "timestamp.json"
    document = json.loads(place.read_bytes())
    document["signed"]["version"] += 5
    place.write_bytes(json.dumps(document).encode())
    refused(world, home, Reason.SIGNATURE)


def test_another_familys_key(tmp_path: Path) -> None:
    """Who signs `faces` cannot sign for `times`: not in its own role, and not in that of times."""
    world = World(tmp_path / "world")
    repository = TinyRepository(tmp_path / "two", {MODEL: MODEL, "faces": "faces"})
    world.repository = repository
    world.signed[1] = repository.publish(tmp_path / "world" / "bundles" / "times-1.edgeml")
    home = world.new_home(tmp_path / "home")
    install(world, home, 1)
    bundle = tmp_path / "world" / "bundles" / "times-2.edgeml"
    repository.publish(bundle, family="faces")
    refused(world, home, Reason.UNKNOWN_RELEASE)
    repository.keys[MODEL] = repository.keys["faces"]
    repository.publish(bundle)
    deployment = install(world, home, 2, attempt=2)
    assert deployment.record.reason == Reason.SIGNATURE
    assert running(home) == 1


def test_a_repository_of_somebody_else(world: World, home: Home, tmp_path: Path) -> None:
    """All of it is signed, by keys that the pinned root does not know."""
    other = TinyRepository(tmp_path / "other", {MODEL: MODEL})
    other.publish(world.folder / "bundles" / "times-2.edgeml")
    world.repository = other
    refused(world, home, Reason.SIGNATURE)


def test_a_new_root_signed_by_the_old_and_the_new_keys_is_followed(world: World, home: Home) -> None:
    """The other side of the same coin: rotation works, or nobody would do it."""
    repository = world.repository
    spare = TinyRepository(home.path.parent / "spare", {MODEL: MODEL}).keys["timestamp"]
    repository.root.revoke_key(repository.keys["timestamp"][0].public_key.keyid, "timestamp")
    repository.keys["timestamp"] = spare
    repository.root.add_key(spare[0].public_key, "timestamp")
    repository.root.version = 2
    repository.write_root()
    repository.write_all()
    install(world, home, 2)
    assert running(home) == 2


def test_a_first_root_that_does_not_sign_itself(tmp_path: Path, world: World) -> None:
    root = Metadata[Root].from_bytes(world.repository.first_root)
    root.signed.version = 7
    with pytest.raises(TrustError, match="no root metadata"):
        Trust(tmp_path / "trust").pin(root.to_bytes())


# --- the clock and the cache


@pytest.mark.parametrize("years", [-10, -1])
def test_a_clock_that_is_behind_is_held_to_its_lower_bound(world: World, home: Home, years: int) -> None:
    """A board without a clock, or one that is set back: expired metadata are not taken for fresh."""
    trust = Trust(home.trust, clock=lambda: time.time() + years * 365 * 86_400)
    origin = SignedOrigin(trust, FolderSource(world.repository.folder), offline=True)
    assert origin.manifest(MODEL, 2).sha256 == world.signed[2]
    world.repository.timestamp.expires = world.repository.now - timedelta(days=400)
    world.repository.write_all()
    with pytest.raises(StepFailedError) as error:
        origin.manifest(MODEL, 2)
    assert error.value.reason is Reason.METADATA_EXPIRED


@pytest.mark.parametrize(
    ("offset_s", "reason"), [(3650 * 86_400.0, Reason.CLOCK), (10.0, Reason.METADATA_EXPIRED)]
)
def test_a_clock_far_ahead_is_named_where_the_server_says_so(
    world: World, home: Home, offset_s: float, reason: Reason
) -> None:
    source = FolderSource(world.repository.folder)
    source.clock_offset_s = offset_s  # type: ignore[assignment]
    trust = Trust(home.trust, clock=lambda: time.time() + 3650 * 86_400)
    with pytest.raises(StepFailedError) as error:
        trust.manifest(source, MODEL, 2)
    assert error.value.reason is reason
    # the wrong clock has left nothing behind: once it is right, all is well
    assert Trust(home.trust).manifest(FolderSource(world.repository.folder), MODEL, 2)


def damage_with(content: bytes) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        path.unlink()
        path.write_bytes(content)

    return damage


def make_folder_of(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("name", ["timestamp", "snapshot", "targets", MODEL, "root"])
@pytest.mark.parametrize(
    "damage", [damage_with(b""), damage_with(b"\xff\x00 no json"), make_folder_of, Path.unlink]
)
def test_a_damaged_cache_begins_again_from_the_pinned_root(
    world: World, home: Home, name: str, damage: Callable[[Path], None]
) -> None:
    damage(home.trust / "metadata" / f"{name}.json")
    install(world, home, 2)
    assert running(home) == 2
    assert world.why_unsafe(home) is None


@pytest.mark.parametrize("name", ["clock.json", "floors.json"])
@pytest.mark.parametrize(
    "content", [b"\x00\x00", b"[" * 100_000, b"[]", b'{"issued": 1e300, "times": "x"}', b'{"issued": NaN}']
)
def test_a_damaged_bound_is_not_fatal(world: World, home: Home, name: str, content: bytes) -> None:
    (home.trust / name).write_bytes(content)
    install(world, home, 2)
    assert running(home) == 2


@pytest.mark.parametrize("damage", [damage_with(b""), damage_with(b"\xff garbage"), make_folder_of])
def test_a_damaged_pinned_root_is_named_and_no_failure_of_the_network(
    world: World, home: Home, damage: Callable[[Path], None]
) -> None:
    """No source can put it right; who enrols again with the root can."""
    damage(home.trust / "pinned.root.json")
    assert "enrol again with --root FILE" in refused(world, home, Reason.SIGNATURE)
    assert Trust(home.trust).is_pinned  # what nobody signed is refused here as before
    Trust(home.trust).pin(world.repository.first_root)
    install(world, home, 2, attempt=2)
    assert running(home) == 2


def test_the_engines_variant_stays_what_was_signed(world: World, home: Home) -> None:
    """A file of the release that runs, changed on the disk, is put right at the next start."""
    file = home.model(MODEL).current / "variants" / VARIANT / "padding.bin"
    file.unlink()
    file.write_bytes(b"evil")
    assert world.why_unsafe(home) is not None
    install(world, home, 1)
    assert world.why_unsafe(home) is None
    assert open_bundle(world.folder / "bundles" / "times-1.edgeml")
