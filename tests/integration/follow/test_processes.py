"""Models in processes that end, are killed, or fork."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest

import edgeml
from edgeml.installed import InstalledModel
from tests.conftest import REPOSITORY
from tests.integration.follow.listening import Agent
from tests.unit.core.release_folders import switch

X = np.ones((1, 16), np.float32)
WAIT_S = 120.0


def python(program: str) -> subprocess.Popen[str]:
    head = "import os, signal, sys, time\nimport numpy as np, edgeml\nX = np.ones((1, 16), np.float32)\n"
    return subprocess.Popen(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", head + textwrap.dedent(program)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
    )


@pytest.mark.parametrize(
    ("last", "code", "state"),
    [("", 0, "closed"), ("sys.exit(3)", 3, "closed"), ("raise ValueError", 1, "running")],
)
def test_a_process_that_ends_without_closing_has_said_all_and_that_it_is_done_unless_it_crashed(
    agent: Agent, last: str, code: int, state: str
) -> None:
    process = python(f"model = edgeml.load('times')\nfor _ in range(7): model(X)\n{last}")
    process.communicate(timeout=WAIT_S)
    assert process.returncode == code
    (beat,) = agent.last().values()
    assert (beat.state, beat.calls, beat.pid) == (state, 7, process.pid)


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
