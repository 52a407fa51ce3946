"""The agent as a process: installs, switches, holds, removes, and reports."""

from __future__ import annotations

import json
import time
from pathlib import Path

from edgeml_devices.messages import Reason, Result

from tests.integration.agent.bundles import scaled
from tests.integration.agent.fixture_server import Server
from tests.integration.agent.processes import Device
from tests.integration.agent.tiny_repository import TinyRepository

GOOD = ["ACCEPTED", "FETCHING", "STAGED", "SELFTEST", "SWITCHING", "PROBATION", "COMMITTED"]


def test_a_release_goes_all_the_way(device: Device, fleet: Server) -> None:
    device.start()
    fleet[0].assign("times", 1, rollout="first")
    event = fleet[0].wait_for_state("times", "COMMITTED", 1)
    assert (event.result, event.rollout, event.variant) == (
        Result.SUCCESSFUL,
        "first",
        "onnxruntime-float32",
    )
    assert fleet[0].states("times") == GOOD
    assert device.current("times") == "releases/1"
    fleet[0].wait_for(lambda found: found.reports[-1].models["times"].state == "IDLE")
    status = fleet[0].reports[-1].models["times"]
    assert (status.running, status.variant, status.result) == (1, "onnxruntime-float32", Result.SUCCESSFUL)
    tested = status.selftest["onnxruntime-float32"]
    assert tested.passed
    assert (tested.p50_ms or 0) > 0
    installed = json.loads((device.home / "models/times/current/installed.json").read_text())
    assert installed["measured"]["onnxruntime-float32"]["p50_ms"] == tested.p50_ms
    facts = fleet[0].reports[0].facts
    assert facts is not None
    assert "onnxruntime" in facts.engines
    code, log = device.stop()
    assert code == 0, log


def test_what_is_here_is_not_fetched_twice(device: Device, fleet: Server) -> None:
    device.start()
    fleet[0].assign("times", 1)
    fleet[0].wait_for_state("times", "COMMITTED", 1)
    fleet[0].assign("times", 2)
    fleet[0].wait_for_state("times", "COMMITTED", 2)
    before = fleet[0].blob_bytes
    fleet[0].assign("times", 1, attempt=2)
    fleet[0].wait_for(lambda found: found.states("times").count("COMMITTED") == 3)
    assert fleet[0].blob_bytes == before
    assert device.current("times") == "releases/1"


def test_a_device_that_lost_its_state_installs_nothing_again(device: Device, fleet: Server) -> None:
    device.start()
    fleet[0].assign("times", 1)
    fleet[0].wait_for_state("times", "COMMITTED", 1)
    device.stop()
    (device.home / "models/times/state.json").unlink()
    before = fleet[0].blob_bytes
    device.start()
    fleet[0].wait_for(lambda found: found.reports[-1].models["times"].result is Result.SUCCESSFUL)
    device.stop()
    assert fleet[0].blob_bytes == before
    assert fleet[0].states("times")[len(GOOD) :] == []  # the outbox counted them as told
    assert device.current("times") == "releases/1"


def test_a_release_whose_outputs_are_wrong_is_refused(
    device: Device, fleet: Server, repository_here: TinyRepository, tmp_path: Path
) -> None:
    repository_here.publish(scaled(tmp_path / "bundles", 3, golden_factor=7.0))
    device.start()
    fleet[0].assign("times", 1)
    fleet[0].wait_for_state("times", "COMMITTED", 1)
    fleet[0].assign("times", 3)
    event = fleet[0].wait_for_state("times", "FAILED", 3)
    assert (event.result, event.reason) == (Result.FAILED_NO_STATE_CHANGE, Reason.PARITY)
    fleet[0].wait_for(lambda found: found.reports[-1].models["times"].state == "IDLE")
    status = fleet[0].reports[-1].models["times"]
    assert not status.selftest["onnxruntime-float32"].passed
    assert device.current("times") == "releases/1"
    # the same attempt is not repeated; a new one is
    fleet[0].assign("times", 3, hold=True)
    fleet[0].wait_for(lambda found: found.reports[-1].generation == found.generation)
    fleet[0].assign("times", 3, attempt=2)
    fleet[0].wait_for(lambda found: found.states("times").count("FAILED") == 2)
    failed = [one for one in fleet[0].events.values() if one.state == "FAILED"]
    assert [one.attempt for one in failed] == [1, 2]


def test_a_held_release_is_tested_and_waits(device: Device, fleet: Server) -> None:
    device.start()
    fleet[0].assign("times", 1, hold=True)
    fleet[0].wait_for(lambda found: found.is_ready("times"))
    assert device.current("times") is None
    device.kill()
    device.start()
    fleet[0].wait_for(lambda found: found.is_ready("times"))
    fleet[0].assign("times", 1, hold=False)
    fleet[0].wait_for_state("times", "COMMITTED", 1)
    assert fleet[0].states("times") == GOOD


def test_a_window_closes_without_the_server(device: Device, fleet: Server) -> None:
    device.start()
    fleet[0].assign("times", 1, open_for_s=0.0)
    fleet[0].wait_for(lambda found: found.is_ready("times"))
    assert "held by the server" in fleet[0].reports[-1].models["times"].detail
    assert device.current("times") is None
    fleet[0].assign("times", 1, open_for_s=60.0)
    fleet[0].wait_for_state("times", "COMMITTED", 1)


def test_another_wish_supersedes_and_no_wish_aborts(device: Device, fleet: Server) -> None:
    device.start()
    fleet[0].assign("times", 1, hold=True)
    fleet[0].wait_for(lambda found: found.is_ready("times"))
    fleet[0].assign("times", 2, hold=True)
    assert fleet[0].wait_for_state("times", "FAILED", 1).reason == Reason.SUPERSEDED
    fleet[0].wait_for(lambda found: found.is_ready("times"))
    fleet[0].unassign("times")
    assert fleet[0].wait_for_state("times", "FAILED", 2).reason == Reason.ABORTED
    assert device.current("times") is None
    # both may be wanted again with the same attempt
    fleet[0].assign("times", 2)
    fleet[0].wait_for_state("times", "COMMITTED", 2)


def test_a_model_is_removed(device: Device, fleet: Server) -> None:
    device.start()
    fleet[0].assign("times", 1)
    fleet[0].wait_for_state("times", "COMMITTED", 1)
    fleet[0].assign("times", None)
    event = fleet[0].wait_for_state("times", "COMMITTED", None)
    assert (event.result, event.reason) == (Result.SUCCESSFUL, Reason.REMOVED)
    device.wait(lambda: list((device.home / "blobs/sha256").iterdir()) == [])
    assert device.current("times") is None
    assert list((device.home / "models/times/releases").iterdir()) == []


def test_models_do_not_wait_for_each_other(
    device: Device, fleet: Server, repository_here: TinyRepository, digits_bundle: Path
) -> None:
    repository_here.publish(digits_bundle)
    device.start()
    fleet[0].assign("digits", 1, hold=True)
    fleet[0].wait_for(lambda found: found.is_ready("digits"))
    fleet[0].assign("times", 1)
    fleet[0].wait_for_state("times", "COMMITTED", 1)
    status = fleet[0].reports[-1].models["digits"]
    # two runtimes, nothing says which is quicker here: both were tried
    assert set(status.selftest) == {"litert-float32", "onnxruntime-float32"}
    fleet[0].assign("digits", 1)
    fleet[0].wait_for_state("digits", "SWITCHING", 1)
    installed = json.loads((device.home / "models/digits/releases/1/installed.json").read_text())
    quickest = min(status.selftest, key=lambda name: status.selftest[name].p50_ms or 0)
    assert installed["variants"] == [quickest]


def test_a_server_that_holds_no_poll_is_not_asked_without_end(device: Device, fleet: Server) -> None:
    fleet[0].holds_polls = False
    begun = time.monotonic()
    device.start()
    fleet[0].assign("times", 1)
    fleet[0].wait_for_state("times", "COMMITTED", 1)
    polls = [path for _, path, _ in fleet[0].requests if path.startswith("/v1/agent/state")]
    assert len(polls) < 25 + (time.monotonic() - begun)
