"""An installed model says how it does."""

from __future__ import annotations

import os
import socket
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import edgeml
from edgeml import health
from edgeml.errors import InferenceError, InputShapeError
from edgeml.histogram import Histogram
from edgeml.installed import InstalledModel
from tests.integration.follow.listening import Agent
from tests.unit.core.release_folders import install, looked_up, switch
from tests.waiting import eventually

X = np.ones((1, 16), np.float32)


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
        agent.hears(lambda beat: beat.seq == 2)
        assert 2 < time.monotonic() - begun < 15  # 4 on an idle machine


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
    assert time.monotonic() - begun < 30
