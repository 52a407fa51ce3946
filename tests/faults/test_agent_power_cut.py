"""The agent dies before and after every call that changes a file; and at random instants.

A kill keeps what was written; a power cut takes back what was not synced (see ``killed_machine``). Either
way `current` leads to a whole release whose every file is as signed, at once and after the next start.
"""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from edgeml_devices.agent.home import Home
from edgeml_devices.agent.record import read_record
from edgeml_devices.messages import Result, State

from tests.faults.killed_machine import (
    ENDED,
    KILLED,
    MODEL,
    Kill,
    World,
    copy_home,
    real_selftest,
    run_child,
    running,
    states_told,
)
from tests.faults.power_cut_disk import Disk

GOOD = ["ACCEPTED", "FETCHING", "STAGED", "SELFTEST", "SWITCHING", "PROBATION", "COMMITTED"]
SEED = 20261125
STATES = [
    State.ACCEPTED,
    State.FETCHING,
    State.STAGED,
    State.SELFTEST,
    State.SWITCHING,
    State.PROBATION,
    State.COMMITTED,
]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


@pytest.fixture
def disk() -> Iterator[Path]:
    """A folder in memory where there is one: what is synced is known without waiting for a real disk."""
    memory = Path("/dev/shm")  # noqa: S108 - a folder of its own in it
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def with_first(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A device that has committed release 1."""
    home = world.new_home(tmp_path_factory.mktemp("device") / "home")
    assert run_child(lambda: world.deployment(home, 1)) == ENDED
    return home.path


@pytest.fixture(scope="module", params=[False, True], ids=["second-release", "first-release"])
def fetched(
    request: pytest.FixtureRequest, world: World, with_first: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A device that has fetched release 2 and goes on to build, test and switch: from 1, or from nothing."""
    place = tmp_path_factory.mktemp("fetched") / "home"
    home = world.new_home(place) if request.param else copy_home(with_first, place)
    assert run_child(lambda: world.deployment(home, 2), Kill(State.STAGED, at="exit")) == KILLED
    return home.path


def killed_at_every_call(
    world: World, fresh: Callable[[int], Home], state: State | None, *, power_cut: bool
) -> int:
    """Kill before and after each call, one device for each; give how many calls there are."""
    call = 0
    while True:
        outcomes = []
        for after in (False, True):
            home = fresh(2 * call + after)
            before = running(home)
            kill = Kill(state, call, after=after, power_cut=power_cut)
            outcomes.append(run_child(lambda home=home: world.deployment(home, 2), kill))  # type: ignore[misc]
            where = f"call {call}, {'after' if after else 'before'}"
            assert world.why_unsafe(home) is None, where
            assert running(home) in {before, 2}, where
            assert run_child(lambda home=home: world.deployment(home, 2)) == ENDED, where  # type: ignore[misc]
            assert world.why_unsafe(home) is None, where
            record = read_record(home.model(MODEL))
            assert record is not None
            assert running(home) == 2, f"{where}: {record}"
            assert (record.state, record.result) == (State.IDLE, Result.SUCCESSFUL), where
            told = states_told(home, 2)
            # what a power cut takes from the outbox with it is the last event, told again
            assert told == GOOD, where
        if outcomes == [ENDED, ENDED]:
            return call
        call += 1


@pytest.mark.parametrize("power_cut", [False, True], ids=["kill", "power-cut"])
def test_every_call_of_the_switch(world: World, fetched: Path, disk: Path, power_cut: bool) -> None:
    calls = killed_at_every_call(
        world, lambda number: copy_home(fetched, disk / str(number)), State.SWITCHING, power_cut=power_cut
    )
    # the write of the state, its event, the links, their folder, and the write of the next state
    assert calls >= 15


@pytest.mark.parametrize("power_cut", [False, True], ids=["kill", "power-cut"])
def test_every_call_of_a_removal(world: World, with_first: Path, disk: Path, power_cut: bool) -> None:
    call, outcome = 0, KILLED
    while outcome == KILLED:
        home = copy_home(with_first, disk / str(call))
        kill = Kill(State.SWITCHING, call, power_cut=power_cut)
        outcome = run_child(lambda home=home: world.deployment(home, None), kill)  # type: ignore[misc]
        assert world.why_unsafe(home) is None, call
        assert running(home) in {1, None}
        assert run_child(lambda home=home: world.deployment(home, None)) == ENDED  # type: ignore[misc]
        assert not home.model(MODEL).current.is_symlink()
        assert list(home.blobs.iterdir()) == []
        assert states_told(home)[-2:] == ["SWITCHING", "COMMITTED"], call
        call += 1
    assert call >= 15


@pytest.mark.soak
@pytest.mark.parametrize("power_cut", [False, True], ids=["kill", "power-cut"])
def test_every_call_of_a_deployment(world: World, with_first: Path, disk: Path, power_cut: bool) -> None:
    calls = killed_at_every_call(
        world, lambda number: copy_home(with_first, disk / str(number)), None, power_cut=power_cut
    )
    assert calls >= 100


@pytest.mark.parametrize("power_cut", [False, True], ids=["kill", "power-cut"])
@pytest.mark.parametrize("state", STATES)
def test_some_calls_of_each_state(
    world: World, with_first: Path, disk: Path, state: State, power_cut: bool
) -> None:
    draw = random.Random(f"{SEED} {state}")  # noqa: S311 - no secret
    for number, call in enumerate(draw.sample(range(12), 3)):
        home = copy_home(with_first, disk / str(number))
        run_child(
            lambda home=home: world.deployment(home, 2),  # type: ignore[misc]
            Kill(state, call, after=draw.random() < 0.5, power_cut=power_cut),
        )
        assert world.why_unsafe(home) is None
        assert run_child(lambda home=home: world.deployment(home, 2)) == ENDED  # type: ignore[misc]
        assert running(home) == 2
        assert world.why_unsafe(home) is None


def at_random_instants(world: World, with_first: Path, folder: Path, count: int, *, real: bool) -> None:
    """Kill at random instants: most devices several times, some never; a third installs a bad release."""
    draw = random.Random(SEED)  # noqa: S311 - no secret
    longest_s = 2.5 if real else 0.25
    kills = number = 0
    while kills < count:
        number += 1
        home = copy_home(with_first, folder / str(number))
        release = draw.choice([2, 2, 3])

        def make(home: Home = home, release: int = release) -> object:
            return world.deployment(home, release, selftest=real_selftest if real else None)

        for _ in range(8):
            outcome = run_child(make, Kill(after_s=draw.uniform(0, longest_s)))  # type: ignore[arg-type]
            assert world.why_unsafe(home) is None, f"device {number}, seed {SEED}"
            assert running(home) in {1, 2}
            if outcome == ENDED:
                break
            kills += 1
        assert run_child(make) == ENDED  # type: ignore[arg-type]
        assert world.why_unsafe(home) is None, f"device {number}, seed {SEED}"
        assert running(home) in ({2} if release == 2 else {1}), states_told(home)


@pytest.mark.parametrize("kills", [12, pytest.param(40, marks=pytest.mark.soak)])
def test_killed_at_random_instants(world: World, with_first: Path, disk: Path, kills: int) -> None:
    at_random_instants(world, with_first, disk, kills, real=False)


@pytest.mark.soak
def test_killed_at_five_hundred_random_instants_with_the_engine(
    world: World, with_first: Path, disk: Path
) -> None:
    at_random_instants(world, with_first, disk, 500, real=True)


def test_a_power_cut_takes_back_what_was_not_synced(tmp_path: Path) -> None:
    """The tool itself: bytes, new entries and renames go, unless they were synced."""
    folder = tmp_path / "disk"
    folder.mkdir()
    (folder / "old").write_bytes(b"old")
    (folder / "target").write_bytes(b"before")
    disk = Disk(tmp_path)
    disk.install()
    try:
        handle = os.open(folder / "synced", os.O_CREAT | os.O_WRONLY)
        os.write(handle, b"whole")
        os.fsync(handle)
        os.close(handle)
        at = os.open(folder, os.O_RDONLY)
        os.fsync(at)
        os.close(at)
        handle = os.open(folder / "old", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(handle, b" and new")
        os.close(handle)
        (folder / "fresh").write_bytes(b"fresh")
        (folder / "fresh").replace(folder / "target")
        (folder / "link").symlink_to("nowhere")
        (folder / "box").mkdir()
        (folder / "box" / "inner").write_bytes(b"inner")
        (folder / "box").rename(folder / "moved")
    finally:
        disk.cut_power()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        "synced": b"whole",
        "old": b"old",
        "target": b"before",
    }
