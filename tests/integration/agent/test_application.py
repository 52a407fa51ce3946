"""An application that runs a model by name, while the agent gives it another release."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from edgeml_devices.messages import Result

from tests.integration.agent.bundles import scaled
from tests.integration.agent.fixture_server import Server
from tests.integration.agent.processes import Device
from tests.integration.agent.tiny_repository import TinyRepository

APPLICATION = """
import sys, time
from pathlib import Path
import numpy as np
import edgeml

x = np.ones((1, 16), np.float32)
seen = []
with edgeml.load("times") as model:
    print("loaded", flush=True)
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and not Path(sys.argv[1]).exists():
        y = model(x)
        assert (y == y[0, 0]).all(), y
        seen.append(float(y[0, 0]))
        time.sleep(0.002)
print(sorted(set(seen)), seen == sorted(seen))
"""


def test_an_application_follows_and_vouches_for_the_release(
    device: Device, fleet: Server, repository_here: TinyRepository, tmp_path: Path
) -> None:
    """No call fails, none gets half of each release; its beats are what lets the release stay."""
    health = {"heartbeat": "required", "probation_s": 10.0, "min_calls": 5, "heartbeat_timeout_s": 30.0}
    repository_here.publish(scaled(tmp_path / "bundles", 3, health=health))
    device.start()
    fleet[0].assign("times", 1)
    fleet[0].wait_for_state("times", "COMMITTED", 1)
    enough = tmp_path / "enough"
    with subprocess.Popen(
        [sys.executable, "-c", APPLICATION, str(enough)],
        env=device.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as application:
        try:
            assert application.stdout is not None
            assert application.stdout.readline() == "loaded\n"
            fleet[0].assign("times", 3)
            event = fleet[0].wait_for_state("times", "COMMITTED", 3)
            assert event.result is Result.SUCCESSFUL
        finally:
            enough.touch()
            out, log = application.communicate(timeout=90)
    assert application.returncode == 0, log
    assert out.strip() == "[2.0, 6.0] True"


SCRIPT = """
import sys
import numpy as np
import edgeml

model = edgeml.load("times")
print(float(model(np.ones((1, 16), np.float32))[0, 0]))
if sys.argv[1] == "closes":
    model.close()
"""


@pytest.mark.parametrize("how", ["closes", "leaves"])
def test_a_script_that_ended_before_a_release_is_not_missed_in_its_probation(
    device: Device, fleet: Server, how: str
) -> None:
    """The policy is `if-seen`; the script reported the release before, and said that it was done."""
    device.start()
    fleet[0].assign("times", 1)
    fleet[0].wait_for_state("times", "COMMITTED", 1)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, how],
        env=device.environment(),
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert (done.returncode, done.stdout.strip()) == (0, "2.0"), done.stderr
    fleet[0].assign("times", 2)
    fleet[0].wait_for_state("times", "PROBATION", 2)
    fleet[0].wait_for(lambda found: found.states("times")[-1] in {"COMMITTED", "FAILED"})
    assert fleet[0].states("times")[-1] == "COMMITTED"
    assert "expects_beats" not in device.record("times")
