"""The disk is full, read-only or damaged, two agents start, state files are gone: clear states, no damage."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from edgeml_devices.agent import machine
from edgeml_devices.agent.config import AgentConfig
from edgeml_devices.agent.deployment import Deployment
from edgeml_devices.agent.home import Home, committed_mark, state_file
from edgeml_devices.agent.record import read_record
from edgeml_devices.messages import Reason, Result, State

from edgeml.bundle import open_bundle
from tests.conftest import require
from tests.faults.killed_machine import ENDED, KILLED, MODEL, Kill, World, run_child, running, states_told
from tests.integration.agent.bundles import VARIANT, scaled

GOOD = ["ACCEPTED", "FETCHING", "STAGED", "SELFTEST", "SWITCHING", "PROBATION", "COMMITTED"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], capture_output=True, check=False
    )
    require(done.returncode == 0, "mounting a tmpfs takes root")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def install(
    world: World, home: Home, release: int | None, attempt: int = 1, *, reserve_bytes: int = 0
) -> Deployment:
    deployment = world.deployment(home, release, attempt, config=AgentConfig(reserve_bytes=reserve_bytes))
    machine.recover(deployment)
    machine.run(deployment)
    return deployment


def fill(place: Path, leave_bytes: int) -> Path:
    """Write a file until so much is left."""
    status = os.statvfs(place)
    size_bytes = status.f_bavail * status.f_frsize - leave_bytes
    (place / "filler").write_bytes(b"\0" * max(0, size_bytes))
    return place / "filler"


def test_what_does_not_fit_is_refused_before_anything_is_fetched(world: World, small_disk: Path) -> None:
    home = world.new_home(small_disk / "home")
    install(world, home, 1)
    record = install(world, home, 2, reserve_bytes=900_000).record
    assert (record.result, record.reason) == (Result.FAILED_NO_STATE_CHANGE, Reason.DISK_FULL)
    assert "MiB free beside the reserve" in record.detail
    assert running(home) == 1
    # space was made: the same release again, with another attempt
    assert install(world, home, 2, 2).record.result is Result.SUCCESSFUL


@pytest.mark.parametrize("leave_bytes", [0, 4096, 12_288, 20_480, 40_960, 65_536, 81_920, 98_304])
def test_a_disk_that_fills_up_at_any_time(world: World, small_disk: Path, leave_bytes: int) -> None:
    home = world.new_home(small_disk / "home")
    install(world, home, 1)
    filler = fill(small_disk, leave_bytes)
    # the check before is passed over: another program takes the space while it is needed
    deployment = world.deployment(home, 2, config=AgentConfig(reserve_bytes=-(10**9)))
    machine.recover(deployment)
    machine.run(deployment)
    assert (deployment.record.result, deployment.record.reason) == (
        Result.FAILED_NO_STATE_CHANGE,
        Reason.DISK_FULL,
    )
    assert running(home) == 1
    assert world.why_unsafe(home) is None
    filler.unlink()
    assert run_child(lambda: world.deployment(home, 2, 2, config=AgentConfig(reserve_bytes=0))) == ENDED
    assert running(home) == 2
    assert world.why_unsafe(home) is None


def test_a_rollback_needs_no_space(world: World, small_disk: Path) -> None:
    home = world.new_home(small_disk / "home")
    install(world, home, 1)
    kill = Kill(State.PROBATION, at="entry")
    config = AgentConfig(reserve_bytes=0)
    assert run_child(lambda: world.deployment(home, 2, config=config), kill) == KILLED
    assert running(home) == 2
    (home.model(MODEL).current / "variants" / VARIANT / "padding.bin").unlink()
    shutil.rmtree(home.blobs)
    fill(small_disk, 8192)
    deployment = world.deployment(home, None, config=config)
    machine.recover(deployment)
    assert running(home) == 1 or deployment.record.state is State.ROLLING_BACK
    machine.advance(deployment)
    assert running(home) == 1
    assert world.why_unsafe(home) is None


def test_a_read_only_disk(world: World, small_disk: Path) -> None:
    home = world.new_home(small_disk / "home")
    install(world, home, 1)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    try:
        record = install(world, home, 2).record
        assert (record.result, record.reason) == (Result.FAILED_NO_STATE_CHANGE, Reason.READ_ONLY)
        assert running(home) == 1
        assert world.why_unsafe(home) is None
    finally:
        subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    # nothing of the failed attempt is on the disk: it is made when it can be
    assert run_child(lambda: world.deployment(home, 2, config=AgentConfig(reserve_bytes=0))) == ENDED
    assert running(home) == 2


# --- what is on the disk is not what was written


@pytest.fixture
def home(world: World, tmp_path: Path) -> Home:
    """A device that runs release 2, and ran release 1 before."""
    home = world.new_home(tmp_path / "home")
    install(world, home, 1)
    install(world, home, 2)
    return home


def break_file(path: Path) -> None:
    """Flip a byte in place: its hard links have it, too."""
    path.chmod(0o644)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def weights(home: Home, release: int) -> Path:
    return home.model(MODEL).release_folder(release) / "variants" / VARIANT / "padding.bin"


def test_a_file_that_is_gone_is_put_back_from_its_blob(world: World, home: Home) -> None:
    weights(home, 2).unlink()
    install(world, home, 2)
    assert running(home) == 2
    assert world.why_unsafe(home) is None
    assert states_told(home, 2)[-1] == "COMMITTED"


def test_a_flipped_byte_sends_it_back_until_the_release_was_fetched_again(world: World, home: Home) -> None:
    break_file(weights(home, 2))
    deployment = world.deployment(home, 2)
    machine.recover(deployment)
    assert deployment.record.reason == Reason.HASH
    machine.advance(deployment)
    assert running(home) == 1
    assert world.why_unsafe(home) is None
    machine.run(deployment)
    assert running(home) == 2
    assert world.why_unsafe(home) is None
    told = states_told(home)
    assert told[len(told) - 1 - told[::-1].index("ROLLING_BACK") :] == ["ROLLING_BACK", "FAILED", *GOOD]


def test_a_damaged_previous_release_is_not_gone_back_to(world: World, home: Home) -> None:
    break_file(weights(home, 1))
    break_file(weights(home, 2))
    deployment = world.deployment(home, 2)
    machine.recover(deployment)
    machine.advance(deployment)
    assert not home.model(MODEL).current.is_symlink()
    machine.run(deployment)
    assert running(home) == 2
    assert world.why_unsafe(home) is None


@pytest.mark.parametrize("content", [b"", b"{", b"\x00" * 400, b'{"model": "other", "state": "IDLE"}'])
def test_an_unreadable_state_keeps_what_was_committed(world: World, home: Home, content: bytes) -> None:
    state_file(home.model(MODEL)).write_bytes(content)
    deployment = world.deployment(home, 2)
    machine.recover(deployment)
    assert deployment.record.state is State.ROLLING_BACK
    machine.run(deployment)
    assert running(home) == 2
    assert world.why_unsafe(home) is None
    record = read_record(home.model(MODEL))
    assert record is not None
    assert (record.state, record.result) == (State.IDLE, Result.SUCCESSFUL)
    assert states_told(home)[-4:] == ["ROLLING_BACK", "FAILED", "ACCEPTED", "COMMITTED"]


def test_an_unreadable_state_in_a_probation_goes_back(world: World, home: Home) -> None:
    world.repository.publish(scaled(world.folder / "more", 4, health={"probation_s": 0.02}))
    world.signed[4] = ""
    assert run_child(lambda: world.deployment(home, 4), Kill(State.PROBATION, at="entry")) == KILLED
    assert running(home) == 4
    state_file(home.model(MODEL)).write_bytes(b"")
    deployment = world.deployment(home, None)
    machine.recover(deployment)
    machine.advance(deployment)
    assert running(home) == 2
    assert world.why_unsafe(home) is None


def test_a_link_that_leads_elsewhere_in_a_switch_is_led_back(world: World, home: Home) -> None:
    assert run_child(lambda: world.deployment(home, 1, 2), Kill(State.SWITCHING, at="entry")) == KILLED
    current = home.model(MODEL).current
    current.unlink()
    current.symlink_to("releases/77")
    deployment = world.deployment(home, 1, 2)
    machine.recover(deployment)
    machine.run(deployment)
    assert running(home) in {1, 2}
    assert world.why_unsafe(home) is None


def test_the_factory_bundle_runs_first_and_last(world: World, tmp_path: Path) -> None:
    home = world.new_home(tmp_path / "home")
    model = home.model(MODEL)
    model.folder.mkdir(parents=True)
    open_bundle(world.folder / "bundles" / "times-1.edgeml").extract(model.factory)
    install(world, home, 3)
    assert model.current.readlink() == Path("factory")
    install(world, home, 2)
    assert running(home) == 2
    break_file(weights(home, 2))
    deployment = world.deployment(home, None)
    machine.recover(deployment)
    machine.advance(deployment)
    assert model.current.readlink() == Path("factory")


def test_blobs_are_shared_and_freed(world: World, home: Home) -> None:
    golden = home.model(MODEL).release_folder(2) / "golden" / "inputs.npz"
    assert golden.stat().st_nlink == 2
    assert golden.stat().st_mode & 0o777 == 0o444
    assert committed_mark(home.model(MODEL), 2).exists()
    here = {path.name for path in home.blobs.iterdir()}
    install(world, home, None)
    assert here
    assert list(home.blobs.iterdir()) == []


@pytest.mark.parametrize(
    "place",
    [
        "models/times/.state.json.new",
        "models/times/.current.new",
        "models/times/.previous.new",
        "models/times/releases/.2.committed.new",
        "outbox/.events.json.new",
        "trust/.clock.json.new",
    ],
)
def test_a_folder_in_a_scratch_files_place_holds_up_nothing(world: World, tmp_path: Path, place: str) -> None:
    home = world.new_home(tmp_path / "home")
    install(world, home, 1)
    (home.path / place / "in it").mkdir(parents=True)
    install(world, home, 2)
    assert running(home) == 2
    assert world.why_unsafe(home) is None


def test_a_file_in_a_scratch_folders_place_holds_up_nothing(world: World, tmp_path: Path) -> None:
    home = world.new_home(tmp_path / "home")
    install(world, home, 1)
    (home.model(MODEL).releases / ".2.new").write_bytes(b"left")
    install(world, home, 2)
    assert running(home) == 2


def make_pipe(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def make_full_folder(path: Path) -> None:
    path.unlink(missing_ok=True)
    (path / "in it").mkdir(parents=True)


@pytest.mark.parametrize("damage", [make_pipe, make_full_folder])
@pytest.mark.parametrize("name", ["models/times/state.json", "outbox/events.json", "outbox/health.json"])
def test_what_is_no_regular_file_is_replaced(
    world: World, home: Home, name: str, damage: Callable[[Path], None]
) -> None:
    damage(home.path / name)
    install(world, home, 1, 2)
    assert running(home) == 1
    assert (home.path / name).is_file()
    assert states_told(home, 1)[-1] == "COMMITTED"
