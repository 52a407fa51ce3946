"""The agent hears how applications do, and goes back from a release that does badly."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from edgeml_devices.messages import Reason, Result

from edgeml.health import HealthBeat, beat_to_bytes, send
from tests.integration.agent.bundles import scaled
from tests.integration.agent.fixture_server import Server
from tests.integration.agent.processes import Device
from tests.integration.agent.tiny_repository import TinyRepository


@contextmanager
def beating(home: Path, release: int, **counts: object) -> Iterator[None]:
    """A process that reports a release every 50 ms."""
    stop, heard = threading.Event(), threading.Event()

    def beat() -> None:
        seq = 0
        while not stop.wait(0.05):
            seq += 1
            taken = send(
                home,
                beat_to_bytes(
                    HealthBeat("times", release, "onnxruntime-float32", 1, f"p{release}", seq, **counts)  # type: ignore[arg-type]
                ),
            )
            if taken:
                heard.set()

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        assert heard.wait(60)
        yield
    finally:
        stop.set()
        thread.join()


@pytest.mark.parametrize(
    ("counts", "reason", "probation_s"),
    [
        ({"calls": 100, "errors": 40, "detail": "no input"}, Reason.ERROR_RATE, 120.0),
        ({"state": "load_failed", "detail": "no engine"}, Reason.LOAD_FAILED, 120.0),
        ({"calls": 50, "latency_counts": {"80": 50}}, Reason.LATENCY, 6.0),  # known at the end alone
        (None, Reason.HEARTBEAT, 1.0),
    ],
    ids=["errors", "load-failed", "latency", "silence"],
)
def test_a_release_that_does_badly_is_rolled_back(
    device: Device,
    fleet: Server,
    repository_here: TinyRepository,
    tmp_path: Path,
    counts: dict[str, object] | None,
    reason: Reason,
    probation_s: float,
) -> None:
    health = {"probation_s": probation_s, "heartbeat": "required", "max_latency_p95_ms": 100.0}
    repository_here.publish(scaled(tmp_path / "bundles", 3, health=health))
    device.start()
    fleet[0].assign("times", 1)
    fleet[0].wait_for_state("times", "COMMITTED", 1)
    fleet[0].assign("times", 3)
    if counts is None:
        event = fleet[0].wait_for_state("times", "FAILED", 3)
    else:
        device.wait(lambda: device.current("times") == "releases/3")
        with beating(device.home, 3, **counts):
            event = fleet[0].wait_for_state("times", "FAILED", 3)
    assert (event.result, event.reason) == (Result.FAILED_ROLLBACK_COMPLETE, reason)
    assert device.current("times") == "releases/1"
    assert not (device.home / "models/times/releases/3").exists()


def test_health_windows_reach_the_server(
    device: Device, fleet: Server, repository_here: TinyRepository, tmp_path: Path
) -> None:
    """Every 10 s in a probation, so that the server's gates need not wait."""
    repository_here.publish(scaled(tmp_path / "bundles", 3, health={"probation_s": 60.0}))
    device.start()
    fleet[0].assign("times", 3)
    fleet[0].wait_for_state("times", "PROBATION", 3)
    with beating(device.home, 3, calls=7, latency_counts={"3": 7}):
        fleet[0].wait_for(lambda found: bool(found.health))
    windows = list(fleet[0].health.values())
    assert sum(window.calls for window in windows) == 7
    assert [window.processes for window in windows] == [1] * len(windows)
    assert windows[0].latency_counts == {"3": 7}


def test_an_application_that_stops_reporting_after_the_switch_is_missed(
    device: Device, fleet: Server, repository_here: TinyRepository, tmp_path: Path
) -> None:
    """`if-seen`: it reported the old release, so it has to report the new one."""
    repository_here.publish(scaled(tmp_path / "bundles", 3, health={"heartbeat_timeout_s": 30.0}))
    device.start()
    fleet[0].assign("times", 1)
    fleet[0].wait_for_state("times", "COMMITTED", 1)
    with beating(device.home, 1, calls=1):
        fleet[0].assign("times", 3)
        event = fleet[0].wait_for_state("times", "FAILED", 3)
    assert (event.result, event.reason) == (Result.FAILED_ROLLBACK_COMPLETE, Reason.HEARTBEAT)


def test_an_application_that_was_killed_before_the_switch_is_not_missed_in_the_probation(
    device: Device, fleet: Server, repository_here: TinyRepository, tmp_path: Path
) -> None:
    """`if-seen`: by its policy it was gone before, so its silence says nothing of the release."""
    repository_here.publish(scaled(tmp_path / "bundles", 3, health={"heartbeat_timeout_s": 0.5}))
    device.start()
    fleet[0].assign("times", 1)
    fleet[0].wait_for_state("times", "COMMITTED", 1)
    with beating(device.home, 1, calls=1):
        pass
    time.sleep(0.6)
    fleet[0].assign("times", 3)
    fleet[0].wait_for_state("times", "PROBATION", 3)
    fleet[0].wait_for(lambda found: found.states("times")[-1] in {"COMMITTED", "FAILED"})
    assert fleet[0].states("times")[-1] == "COMMITTED"


def test_an_abort_in_probation_goes_back_where_it_is_asked_for(
    device: Device, fleet: Server, repository_here: TinyRepository, tmp_path: Path
) -> None:
    repository_here.publish(scaled(tmp_path / "bundles", 3, health={"probation_s": 60}))
    device.start()
    fleet[0].assign("times", 1)
    fleet[0].wait_for_state("times", "COMMITTED", 1)
    fleet[0].assign("times", 3)
    fleet[0].wait_for_state("times", "PROBATION", 3)
    fleet[0].assign("times", 1, on_abort="rollback")
    event = fleet[0].wait_for_state("times", "FAILED", 3)
    assert (event.result, event.reason) == (Result.FAILED_ROLLBACK_COMPLETE, Reason.ABORTED)
    assert device.current("times") == "releases/1"


def test_an_application_may_ask_for_a_later_switch(device: Device, fleet: Server) -> None:
    device.start()
    fleet[0].assign("times", 1)
    fleet[0].wait_for_state("times", "COMMITTED", 1)
    flag = device.home.parent / "busy"
    flag.touch()
    device.stop()
    (device.home / "agent.toml").write_text(f'[may_switch]\ntimes = ["test", "!", "-e", "{flag}"]\n')
    device.start()
    fleet[0].assign("times", 2)
    fleet[0].wait_for(lambda found: found.is_ready("times"))
    assert "does not let it switch" in fleet[0].reports[-1].models["times"].detail
    assert device.current("times") == "releases/1"


def test_the_health_socket_is_for_every_user(device: Device) -> None:
    device.start()
    place = device.home / "health.sock"
    device.wait(place.exists)
    device.wait(lambda: place.stat().st_mode & 0o777 == 0o666)
    assert place.is_socket()
    queued = int(Path("/proc/sys/net/unix/max_dgram_qlen").read_text())
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        for _ in range(queued + 10):  # it has taken some once all were sent
            sender.sendto(b"no beat", str(place))
    code, log = device.stop()
    assert code == 0
    assert "Traceback" not in log
