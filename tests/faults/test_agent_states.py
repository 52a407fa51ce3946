"""The agent is killed in every state, at its entry, in its work and at its exit; and again and again.

The pattern is that of Mender's state tests: a table of where it dies, where it ends, and which states it
went through. Processes are real and die by SIGKILL.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from edgeml_devices.agent.config import AgentConfig
from edgeml_devices.agent.deployment import Deployment
from edgeml_devices.agent.home import Home
from edgeml_devices.agent.machine import MAX_STEPS
from edgeml_devices.agent.record import read_record
from edgeml_devices.messages import Reason, Result, State

from edgeml.health import HealthPolicy
from edgeml.selftest import SelftestResult
from tests.faults.killed_machine import (
    ENDED,
    KILLED,
    MODEL,
    Kill,
    World,
    copy_home,
    quick_selftest,
    run_child,
    running,
    states_told,
)

GOOD = ["ACCEPTED", "FETCHING", "STAGED", "SELFTEST", "SWITCHING", "PROBATION", "COMMITTED"]
BAD = ["ACCEPTED", "FETCHING", "STAGED", "SELFTEST", "FAILED"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def with_first(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A device that has committed release 1."""
    home = world.new_home(tmp_path_factory.mktemp("device") / "home")
    assert run_child(lambda: world.deployment(home, 1)) == ENDED
    assert running(home) == 1
    return home.path


@pytest.fixture
def home(with_first: Path, tmp_path: Path) -> Home:
    return copy_home(with_first, tmp_path / "home")


WORK = {State.ACCEPTED: 20, State.FETCHING: 8, State.STAGED: 12, State.SELFTEST: 8}
"""A system call in the middle of a state's work; 4 in the others."""


def kill_in(state: State, at: str) -> Kill:
    return Kill(state, call=WORK.get(state, 4)) if at == "work" else Kill(state, at=at)


@pytest.mark.parametrize("at", ["entry", "work", "exit"])
@pytest.mark.parametrize("state", [State(name) for name in GOOD])
def test_killed_once_in_a_good_release(world: World, home: Home, state: State, at: str) -> None:
    assert run_child(lambda: world.deployment(home, 2), kill_in(state, at)) == KILLED
    assert world.why_unsafe(home) is None
    assert run_child(lambda: world.deployment(home, 2)) == ENDED
    assert world.why_unsafe(home) is None
    assert running(home) == 2
    assert states_told(home, 2) == GOOD
    record = read_record(home.model(MODEL))
    assert record is not None
    assert (record.state, record.result, record.target) == (State.IDLE, Result.SUCCESSFUL, 2)


@pytest.mark.parametrize("at", ["entry", "work", "exit"])
@pytest.mark.parametrize("state", [State(name) for name in BAD])
def test_killed_once_in_a_bad_release(world: World, home: Home, state: State, at: str) -> None:
    assert run_child(lambda: world.deployment(home, 3), kill_in(state, at)) == KILLED
    assert run_child(lambda: world.deployment(home, 3)) == ENDED
    assert world.why_unsafe(home) is None
    assert running(home) == 1
    assert states_told(home, 3) == BAD
    record = read_record(home.model(MODEL))
    assert record is not None
    assert (record.result, record.reason) == (Result.FAILED_NO_STATE_CHANGE, Reason.PARITY)


ROLLED_BACK = ["ACCEPTED", "FETCHING", "STAGED", "SELFTEST", "SWITCHING", "ROLLING_BACK", "FAILED"]


def refusing(home: Home, *releases: int) -> AgentConfig:
    """Give a configuration whose restart command fails for some releases."""
    script = f'case "$(readlink {home.path}/models/{MODEL}/current)" in {patterns(releases)}) exit 1;; esac'
    return AgentConfig(restart={MODEL: ("/bin/sh", "-c", script)})


def spoiling(home: Home) -> AgentConfig:
    """Give a configuration whose restart command refuses release 2, and writes over release 1 on the disk."""
    models = f"{home.path}/models/{MODEL}"
    spoil = f"for file in {models}/releases/1/variants/*/*; do chmod u+w $file; echo spoilt > $file; done"
    spoil += f"; rm {home.path}/blobs/sha256/*"
    script = f'case "$(readlink {models}/current)" in releases/2) {spoil}; exit 1;; esac'
    return AgentConfig(restart={MODEL: ("/bin/sh", "-c", script)})


def patterns(releases: tuple[int, ...]) -> str:
    return "|".join(f"releases/{release}" for release in releases)


@pytest.mark.parametrize("at", ["entry", "work", "exit"])
@pytest.mark.parametrize("state", [State.SWITCHING, State.ROLLING_BACK, State.FAILED])
def test_killed_once_where_the_application_refuses_the_release(
    world: World, home: Home, state: State, at: str
) -> None:
    def make() -> Deployment:
        return world.deployment(home, 2, config=refusing(home, 2))

    assert run_child(make, kill_in(state, at)) == KILLED
    assert world.why_unsafe(home) is None
    assert run_child(make) == ENDED
    assert world.why_unsafe(home) is None
    assert running(home) == 1
    assert states_told(home, 2) == ROLLED_BACK
    record = read_record(home.model(MODEL))
    assert record is not None
    assert (record.result, record.reason) == (Result.FAILED_ROLLBACK_COMPLETE, Reason.RESTART_FAILED)


@pytest.mark.parametrize("at", ["entry", "exit"])
@pytest.mark.parametrize("state", [State.ROLLING_BACK, State.QUARANTINED])
def test_killed_once_where_nothing_sound_is_left(world: World, home: Home, state: State, at: str) -> None:
    def make() -> Deployment:
        return world.deployment(home, 2, config=spoiling(home))

    kill = kill_in(state, at)
    assert run_child(make, kill) == (ENDED if state is State.QUARANTINED and at == "exit" else KILLED)
    assert run_child(make) == ENDED
    assert running(home) is None
    assert not home.model(MODEL).current.is_symlink()
    assert states_told(home, 2) == [*ROLLED_BACK[:-1], "QUARANTINED"]
    record = read_record(home.model(MODEL))
    assert record is not None
    assert (record.state, record.result) == (State.QUARANTINED, Result.FAILED_UNABLE_TO_ROLLBACK)
    assert record.reason == Reason.RESTART_FAILED


def test_a_sound_release_stays_though_no_restart_succeeds(world: World, home: Home) -> None:
    refuses_all = AgentConfig(restart={MODEL: ("/bin/false",)})
    assert run_child(lambda: world.deployment(home, 2, config=refuses_all)) == ENDED
    assert running(home) == 1
    assert world.why_unsafe(home) is None
    record = read_record(home.model(MODEL))
    assert record is not None
    assert (record.result, record.reason) == (Result.FAILED_ROLLBACK_COMPLETE, Reason.RESTART_FAILED)
    assert "after the rollback: /bin/false ended with exit code 1" in record.detail


@pytest.mark.parametrize("reason", [Reason.SELFTEST_TIMEOUT, Reason.SELFTEST_CRASH, Reason.PARITY])
def test_a_sound_release_stays_whatever_its_test_says_after_a_rollback(
    world: World, home: Home, reason: Reason
) -> None:
    """The test of release 1 is one that a machine short of memory or time gives."""

    def selftest(folder: Path, variant: str, policy: HealthPolicy) -> SelftestResult:
        if folder.name == "1":
            return SelftestResult(variant, False, reason.value, "no luck")
        return quick_selftest(folder, variant, policy)

    def make() -> Deployment:
        return world.deployment(home, 2, selftest=selftest, config=refusing(home, 2))

    assert run_child(make) == ENDED
    assert run_child(make) == ENDED  # another start looks again
    assert running(home) == 1
    assert world.why_unsafe(home) is None
    record = read_record(home.model(MODEL))
    assert record is not None
    assert "no luck" in record.detail
    ended = reason is not Reason.PARITY
    assert record.result is (Result.FAILED_ROLLBACK_COMPLETE if ended else Result.FAILED_UNABLE_TO_ROLLBACK)
    assert record.reason == Reason.RESTART_FAILED


def test_a_quarantined_device_takes_another_release(world: World, home: Home) -> None:
    run_child(lambda: world.deployment(home, 2, config=spoiling(home)))
    assert running(home) is None
    assert run_child(lambda: world.deployment(home, 1, attempt=2)) == ENDED
    assert running(home) == 1
    assert world.why_unsafe(home) is None


@pytest.mark.parametrize(
    "state", [State.IDLE, *(State(name) for name in GOOD), State.ROLLING_BACK, State.FAILED]
)
def test_killed_at_each_start(world: World, home: Home, state: State) -> None:
    """A device that dies in a state again and again gives the attempt up, and runs what it ran."""
    config = refusing(home, 2) if state in {State.ROLLING_BACK, State.FAILED} else None

    def make() -> Deployment:
        return world.deployment(home, 2, config=config)

    outcomes = []
    for _ in range(70):
        outcomes.append(run_child(make, Kill(state, at="entry")))
        assert world.why_unsafe(home) is None
        if outcomes[-1] == ENDED:
            break
    record = read_record(home.model(MODEL))
    assert record is not None
    if state in {State.IDLE, State.COMMITTED, State.FAILED}:
        # these change nothing of what runs: they are done again for ever
        assert outcomes == [KILLED] * 70
        assert running(home) == (2 if state is State.COMMITTED else 1)
    elif state is State.ROLLING_BACK:
        assert record.state is State.QUARANTINED
        assert running(home) is None
    else:
        assert outcomes[-1] == ENDED
        assert running(home) == 1
        wanted = Reason.TOO_MANY_STARTS if state is State.PROBATION else Reason.TOO_MANY_STEPS
        assert record.reason == wanted
        assert len(outcomes) == (5 if state is State.PROBATION else len(outcomes))
        assert len(outcomes) <= MAX_STEPS + 1
