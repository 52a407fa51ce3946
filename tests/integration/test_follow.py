"""An installed model follows ``current`` between two calls, and says how it does."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import edgeml
from edgeml import health
from edgeml.bundle import open_bundle
from edgeml.errors import EdgemlError, InferenceError, InputShapeError, UsageError
from edgeml.following import load_current
from edgeml.health import HealthBeat, beat_from_bytes
from edgeml.histogram import Histogram
from edgeml.installed import InstalledModel
from edgeml.model import Loaded
from edgeml.testing.models import make_double
from edgeml.words import RuntimeName
from tests.conftest import REPOSITORY
from tests.unit.core.release_folders import bundled, install, looked_up, switch, times
from tests.waiting import eventually

X = np.ones((1, 16), np.float32)
WAIT_S = 20.0


@pytest.fixture(name="home")
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGEML_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture(name="installed")
def two_releases(home: Path, tmp_path: Path) -> InstalledModel:
    """``times``: release 1 gives the input, release 2 gives it twice, under other names."""
    install(home, times(tmp_path / "made", 1.0, 1))
    model = install(home, times(tmp_path / "made", 2.0, 2, names="ab"))
    switch(model, 1)
    return model


class Agent:
    """What listens to beats on a device."""

    def __init__(self, home: Path) -> None:
        self.receiver = health.listen(home)
        self.beats: list[HealthBeat] = []

    def hear(self) -> list[HealthBeat]:
        """Give all beats that came so far."""
        try:
            while True:
                self.beats.append(beat_from_bytes(self.receiver.recv(65536)))
        except BlockingIOError:
            return self.beats

    def hears(self, wanted: Callable[[HealthBeat], bool]) -> HealthBeat:
        """Wait for a beat."""
        eventually(lambda: any(map(wanted, self.hear())))
        return next(filter(wanted, self.beats))

    def last(self) -> dict[tuple[str, int], HealthBeat]:
        """Give the last beat of each release in each process."""
        return {(beat.process, beat.release): beat for beat in self.hear() if beat.state != "load_failed"}


@pytest.fixture(name="agent")
def listening(installed: InstalledModel) -> Iterator[Agent]:
    agent = Agent(installed.home)
    yield agent
    agent.receiver.close()


def test_a_switch_is_taken_between_two_calls(installed: InstalledModel) -> None:
    with edgeml.load("times") as model:
        assert (model.release, model(X)[0, 0]) == (1, 1)
        switch(installed, 2)
        eventually(lambda: model.release == 2)
        assert model(X)[0, 0] == 2
        assert model.variant == "onnxruntime-float32"
        assert [spec.name for spec in model.spec.inputs] == ["a"]
        assert model.run({"a": X})["b"][0, 0] == 2
        assert model(a=X)[0, 0] == 2
        assert model.predict(X[0]).outputs["b"][0, 0] == 2
        assert "times release 2" in repr(model)
        switch(installed, 1)
        eventually(lambda: model(X)[0, 0] == 1)


def test_no_call_is_dropped_or_torn_while_releases_are_switched(installed: InstalledModel) -> None:
    wrong: list[object] = []
    seen: list[set[int]] = []
    done = threading.Event()

    def work(model: edgeml.Model, place: int) -> None:
        releases: set[int] = set()
        calls: list[Callable[[], np.ndarray]] = [
            lambda: model(X),
            lambda: next(iter(model.predict(X[0]).outputs.values())),
        ]
        try:
            while not done.is_set():
                values = set(calls[place % 2]().ravel().tolist())
                releases |= values
                if len(values) != 1 or not values <= {1.0, 2.0}:
                    wrong.append(values)
        except BaseException as error:  # noqa: BLE001 - whatever it is, it should not be
            wrong.append(error)
        seen.append(releases)

    with edgeml.load("times") as model:
        threads = [threading.Thread(target=work, args=(model, place)) for place in range(4)]
        for thread in threads:
            thread.start()
        for number in range(200):
            switch(installed, 1 + number % 2)
            time.sleep(0.015)
        switch(installed, 2)
        eventually(lambda: model.release == 2)
        done.set()
        for thread in threads:
            thread.join()
        assert wrong == []
        assert seen == [{1, 2}] * 4
        assert model(X)[0, 0] == 2


def test_without_follow_a_model_stays_what_it_is(installed: InstalledModel, agent: Agent) -> None:
    with edgeml.load("times", follow=False) as pinned, edgeml.load("times") as model:
        switch(installed, 2)
        eventually(lambda: model.release == 2)
        assert pinned(X)[0, 0] == 1
    with edgeml.load(installed.release_folder(1)) as by_path:
        assert by_path.release == 1
    assert len({beat.process for beat in agent.hear()}) == 1


def test_what_was_asked_for_holds_for_each_release(installed: InstalledModel) -> None:
    with pytest.raises(UsageError, match="no_such"):
        edgeml.load("times", options={"no_such": "1"})
    with edgeml.load("times", variant="onnxruntime-float32", threads=2) as model:
        switch(installed, 2)
        eventually(lambda: model.release == 2)


def test_a_release_that_cannot_be_loaded_leaves_the_old_one_running(
    installed: InstalledModel, agent: Agent
) -> None:
    artifact = installed.release_folder(2) / "variants" / "onnxruntime-float32" / "times-2.onnx"
    content = artifact.read_bytes()
    artifact.write_bytes(content[:-1] + b"x")
    with edgeml.load("times") as model:
        switch(installed, 2)
        beat = agent.hears(lambda beat: beat.state == "load_failed")
        assert (beat.release, beat.variant) == (2, "onnxruntime-float32")
        assert "BundleError" in beat.detail
        assert "damaged" in beat.detail
        assert model(X)[0, 0] == 1
        artifact.write_bytes(content)
        switch(installed, 1)
        switch(installed, 2)  # as a second attempt does
        eventually(lambda: model.release == 2)
        agent.hears(lambda beat: beat.state == "running" and beat.release == 2)


def test_a_failure_is_said_again_until_the_device_switches(installed: InstalledModel, agent: Agent) -> None:
    (installed.release_folder(2) / "manifest.json").unlink()
    with edgeml.load("times"):
        switch(installed, 2)
        eventually(lambda: sum(beat.state == "load_failed" for beat in agent.hear()) >= 2)
        switch(installed, 1)
        time.sleep(0.6)
        count = sum(beat.state == "load_failed" for beat in agent.hear())
        time.sleep(2.2)
        assert sum(beat.state == "load_failed" for beat in agent.hear()) == count


def test_a_removed_model_runs_on_until_its_process_ends(installed: InstalledModel) -> None:
    with edgeml.load("times") as model:
        installed.current.unlink()
        shutil.rmtree(installed.releases)
        time.sleep(0.6)
        assert model(X)[0, 0] == 1
    with pytest.raises(UsageError, match="no installed model"):
        edgeml.load("times")


def test_the_factorys_bundle_is_followed_like_a_release(installed: InstalledModel, tmp_path: Path) -> None:
    open_bundle(tmp_path / "made" / "times-2.edgeml").extract(installed.factory)
    with edgeml.load("times") as model:
        installed.current.unlink()
        installed.current.symlink_to("factory")
        eventually(lambda: model(X)[0, 0] == 2)


def test_a_release_that_goes_away_while_it_is_loaded_is_passed_over(installed: InstalledModel) -> None:
    folders = []

    def load(folder: Path) -> Loaded:
        folders.append(folder.name)
        if len(folders) == 1:  # the device switches and clears up meanwhile
            switch(installed, 2)
            shutil.rmtree(installed.release_folder(1))
        return edgeml.load(folder)._loaded

    target, loaded = load_current(installed, load)
    assert (target, loaded.release, folders) == ("releases/2", 2, ["1", "2"])
    shutil.rmtree(installed.release_folder(2))
    with pytest.raises(EdgemlError):
        load_current(installed, load)


def test_a_closed_model_says_so_and_follows_no_more(installed: InstalledModel, agent: Agent) -> None:
    model = edgeml.load("times")
    model.close()
    model.close()
    with pytest.raises(InferenceError, match="closed"):
        model(X)
    switch(installed, 2)
    time.sleep(0.4)
    assert model.release == 1
    assert [beat.state for beat in agent.hear()][-1] == "closed"
    assert not any("edgeml follows" in thread.name for thread in threading.enumerate())


# --- engines are freed


def sessions() -> int:
    return sum(type(thing).__name__ == "BoundSession" for thing in gc.get_objects())


@pytest.mark.parametrize("runtime", ["litert", "onnxruntime", "openvino"])
def test_an_old_engine_is_freed_as_soon_as_no_call_uses_it(
    home: Path, tmp_path: Path, runtime: RuntimeName
) -> None:
    artifact = make_double(tmp_path, runtime)
    files = (artifact, *tmp_path.glob("*.bin"))
    for release in (1, 2):
        installed = install(home, bundled(tmp_path, "double", release, runtime, *files))
    switch(installed, 1)
    gc.collect()
    gc.disable()
    try:
        before = sessions()
        models = [edgeml.load("double")]
        under_way = [models[0].run]
        switch(installed, 2)
        eventually(lambda: models[0].release == 2)
        time.sleep(0.6)
        assert sessions() == before + 2
        (name,) = (spec.name for spec in models[0].spec.inputs)
        np.testing.assert_array_equal(next(iter(under_way[0]({name: X}).values())), 2 * X)
        under_way.clear()
        eventually(lambda: sessions() == before + 1)
        np.testing.assert_array_equal(models[0](X), 2 * X)
        models.clear()
        eventually(lambda: sessions() == before)
    finally:
        gc.enable()


def test_a_model_that_nobody_has_any_more_is_not_followed(installed: InstalledModel, agent: Agent) -> None:
    model = edgeml.load("times")
    model(X)
    del model
    assert agent.hears(lambda beat: beat.state == "closed").calls == 1


# --- beats


def test_beats_count_every_call(installed: InstalledModel, agent: Agent) -> None:
    made = [0] * 4

    def work(model: edgeml.Model, place: int) -> None:
        for _ in range(3000):
            model(X) if place % 2 else model.predict(X[0])
            made[place] += 1

    with edgeml.load("times") as model:
        threads = [threading.Thread(target=work, args=(model, place)) for place in range(4)]
        for thread in threads:
            thread.start()
        switch(installed, 2)
        for thread in threads:
            thread.join()
        eventually(lambda: model.release == 2)
        model.run({"a": X})
    beats = agent.last()
    assert {release for _, release in beats} == {1, 2}
    assert {beat.state for beat in beats.values()} == {"closed"}
    assert sum(beat.calls for beat in beats.values()) == sum(made) + 1
    assert all(Histogram.from_json(beat.latency_counts).total == beat.calls for beat in beats.values())
    numbers = [beat.seq for beat in agent.beats]
    assert numbers == sorted(set(numbers))
    assert {beat.pid for beat in agent.beats} == {os.getpid()}


def test_a_release_that_is_loaded_again_counts_on(installed: InstalledModel, agent: Agent) -> None:
    with edgeml.load("times") as model:
        for number in (1, 2, 1):
            switch(installed, number)
            eventually(lambda wanted=number: model.release == wanted)  # type: ignore[misc] # bound now
            for _ in range(5):
                model(X)
    calls = {beat.release: beat.calls for beat in agent.last().values()}
    assert calls == {1: 10, 2: 5}
    for release in calls:
        counts = [beat.calls for beat in agent.beats if beat.release == release]
        assert counts == sorted(counts)


def test_beats_come_every_two_seconds_without_any_call(installed: InstalledModel, agent: Agent) -> None:
    with edgeml.load("times"):
        agent.hears(lambda beat: beat.seq == 0)
        begun = time.monotonic()
        agent.hears(lambda beat: beat.seq == 1)
        assert 1 < time.monotonic() - begun < 4


def test_errors_of_the_engine_count_and_those_of_the_caller_do_not(home: Path, tmp_path: Path) -> None:
    switch(install(home, looked_up(tmp_path, 1)), 1)
    agent = Agent(home)
    with agent.receiver, edgeml.load("looked_up") as model:
        assert model(np.array([1], np.int64)) == [20]
        for _ in range(2):
            with pytest.raises(InferenceError):
                model(np.array([5], np.int64))
        with pytest.raises(InputShapeError):
            model(np.zeros((2, 2), np.int64))
        model.close()
        (beat,) = agent.last().values()
    assert (beat.calls, beat.errors) == (3, 2)
    assert "InferenceError" in beat.detail
    assert Histogram.from_json(beat.latency_counts).total == 1


def test_an_application_can_ask_for_time(installed: InstalledModel, agent: Agent) -> None:
    with edgeml.load("times") as model:
        model.defer(600)
        assert 590 < agent.hears(lambda beat: beat.defer_s > 0).defer_s <= 600
        agent.beats.clear()
        model.defer(0)
        agent.hears(lambda beat: beat.defer_s == 0)
        model.defer(float("inf"))
        agent.hears(lambda beat: beat.defer_s > 600)
    with edgeml.load("times", follow=False) as pinned:
        pinned.defer(600)


def test_an_agent_that_is_killed_and_comes_back_hears_all_counts(installed: InstalledModel) -> None:
    with edgeml.load("times") as model:
        agent = Agent(installed.home)
        agent.hears(lambda beat: beat.seq in {0, 1})
        agent.receiver.close()  # the file stays, as after a kill
        for _ in range(10):
            model(X)
        again = Agent(installed.home)
        with again.receiver:
            again.hears(lambda beat: beat.calls == 10)


def test_an_agent_that_hangs_does_not_hold_up_calls(installed: InstalledModel, agent: Agent) -> None:
    agent.receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    while health.send(installed.home, b"x" * 500):
        pass
    with edgeml.load("times") as model:
        begun = time.monotonic()
        for _ in range(100):
            model(X)
        model.defer(1)
    assert time.monotonic() - begun < 5


# --- other processes


def python(program: str) -> subprocess.Popen[str]:
    head = "import os, signal, sys, time\nimport numpy as np, edgeml\nX = np.ones((1, 16), np.float32)\n"
    return subprocess.Popen(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", head + textwrap.dedent(program)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
    )


def test_a_process_that_ends_without_closing_has_said_all(agent: Agent) -> None:
    process = python("model = edgeml.load('times')\nfor _ in range(7): model(X)")
    process.communicate(timeout=WAIT_S)
    assert process.returncode == 0
    (beat,) = agent.last().values()
    assert (beat.state, beat.calls, beat.pid) == ("closed", 7, process.pid)


def test_a_killed_process_troubles_nobody(agent: Agent) -> None:
    process = python("model = edgeml.load('times')\nwhile True: model(X)")
    with edgeml.load("times") as model:
        agent.hears(lambda beat: beat.pid == process.pid and beat.calls > 0)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        model(X)
    (beat,) = (beat for beat in agent.last().values() if beat.pid == os.getpid())
    assert (beat.state, beat.calls) == ("closed", 1)
    assert all(beat.state == "running" for beat in agent.beats if beat.pid == process.pid)


def test_a_forked_child_is_silent_until_it_calls_and_then_another_process(
    installed: InstalledModel, agent: Agent
) -> None:
    program = """
        model = edgeml.load('times')
        for _ in range(3): model(X)
        idle = os.fork()
        if idle == 0:
            time.sleep(0.7)
            os._exit(0)
        busy = os.fork()
        if busy == 0:
            print(os.getpid(), flush=True)
            for _ in range(5): model(X)
            while model.release != 2: time.sleep(0.01)
            assert model(X)[0, 0] == 2
            model.close()
            os._exit(0)
        assert os.waitpid(idle, 0)[1] == 0
        print(idle, flush=True)
        assert os.waitpid(busy, 0)[1] == 0
        model(X)
    """
    process = python(program)
    assert process.stdout is not None
    busy, idle = int(process.stdout.readline()), int(process.stdout.readline())
    switch(installed, 2)
    process.communicate(timeout=WAIT_S)
    assert process.returncode == 0
    calls = {(beat.pid, beat.release): beat.calls for beat in agent.last().values()}
    assert calls[busy, 1] == 5
    assert calls[busy, 2] == 1
    assert sum(count for (pid, _), count in calls.items() if pid == process.pid) == 4
    assert idle not in {pid for pid, _ in calls}
    assert len({beat.process for beat in agent.beats}) == 2
