"""The agent as a process: joins, installs, switches, reports, holds, removes, and stops."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from edgeml_devices.messages import Reason, Result

from edgeml.health import HealthBeat, beat_to_bytes, send
from tests.conftest import require
from tests.integration.agent.bundles import scaled
from tests.integration.agent.fixture_server import Fleet, serving
from tests.integration.agent.processes import Device
from tests.integration.agent.tiny_repository import TinyRepository, sha256_of

GOOD = ["ACCEPTED", "FETCHING", "STAGED", "SELFTEST", "SWITCHING", "PROBATION", "COMMITTED"]
IDLE_LIMIT_BYTES = 40_000_000

Server = tuple[Fleet, str]


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
    device.start()
    fleet[0].assign("times", 1)
    fleet[0].wait_for_state("times", "COMMITTED", 1)
    polls = [path for _, path, _ in fleet[0].requests if path.startswith("/v1/agent/state")]
    assert len(polls) < 25


# --- health


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
        assert heard.wait(30)
        yield
    finally:
        stop.set()
        thread.join()


@pytest.mark.parametrize(
    ("counts", "reason"),
    [
        ({"calls": 100, "errors": 40, "detail": "no input"}, Reason.ERROR_RATE),
        ({"state": "load_failed", "detail": "no engine"}, Reason.LOAD_FAILED),
        ({"calls": 50, "latency_counts": {"80": 50}}, Reason.LATENCY),
        (None, Reason.HEARTBEAT),
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
) -> None:
    health = {"probation_s": 1.0, "heartbeat": "required", "max_latency_p95_ms": 100.0}
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
    repository_here.publish(scaled(tmp_path / "bundles", 3, health={"probation_s": 11.0}))
    device.start()
    fleet[0].assign("times", 3)
    fleet[0].wait_for_state("times", "PROBATION", 3)
    with beating(device.home, 3, calls=7, latency_counts={"3": 7}):
        fleet[0].wait_for_state("times", "COMMITTED", 3)
    windows = list(fleet[0].health.values())
    assert sum(window.calls for window in windows) == 7
    assert [window.processes for window in windows] == [1] * len(windows)
    assert windows[0].latency_counts == {"3": 7}


def test_an_application_that_stops_reporting_after_the_switch_is_missed(
    device: Device, fleet: Server
) -> None:
    """`if-seen`: it reported the old release, so it has to report the new one."""
    device.start()
    fleet[0].assign("times", 1)
    fleet[0].wait_for_state("times", "COMMITTED", 1)
    with beating(device.home, 1, calls=1):
        fleet[0].assign("times", 2)
        event = fleet[0].wait_for_state("times", "FAILED", 2)
    assert (event.result, event.reason) == (Result.FAILED_ROLLBACK_COMPLETE, Reason.HEARTBEAT)


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


# --- joining


def test_a_lost_answer_to_an_enrolment_makes_no_second_device(
    fleet: Server, repository_here: TinyRepository, tmp_path: Path
) -> None:
    device = Device(tmp_path / "new", fleet[1])
    root = tmp_path / "root.json"
    root.write_bytes(repository_here.first_root)
    fleet[0].lost_answers = 1
    arguments = ("enrol", "--server", fleet[1], "--join-token", "join", "--root", str(root))
    first = device.command(*arguments, check=False)
    assert first.returncode == 1
    assert "run the command again" in first.stderr
    device.command(*arguments)
    assert len(fleet[0].tokens) == 1
    assert (device.home / "identity.json").stat().st_mode & 0o777 == 0o600
    assert device.status()["device_id"] == "device-1"


def test_another_name_for_a_device_that_has_joined_is_not_taken_in_silence(
    fleet: Server, repository_here: TinyRepository, tmp_path: Path
) -> None:
    device = Device(tmp_path / "new", fleet[1])
    root = tmp_path / "root.json"
    root.write_bytes(repository_here.first_root)
    arguments = ("enrol", "--server", fleet[1], "--join-token", "join", "--root", str(root))
    assert "not taken" not in device.command(*arguments, "--name", "hall-2").stderr
    again = device.command(*arguments, "--name", "hall-3")
    assert "knows this device as hall-2, not as hall-3" in again.stderr
    assert device.status()["name"] == "hall-2"


def test_a_join_token_that_is_refused_is_not_to_be_tried_again(
    fleet: Server, repository_here: TinyRepository, tmp_path: Path
) -> None:
    device = Device(tmp_path / "new", fleet[1])
    root = tmp_path / "root.json"
    root.write_bytes(repository_here.first_root)
    refused = device.command(
        "enrol", "--server", fleet[1], "--join-token", "used", "--root", str(root), check=False
    )
    assert refused.returncode == 1
    assert "ask for a new one" in refused.stderr
    assert "again" not in refused.stderr


def test_a_device_that_was_retired_says_so_until_it_joins_again(device: Device, fleet: Server) -> None:
    device.start()
    fleet[0].assign("times", 1)
    fleet[0].wait_for_state("times", "COMMITTED", 1)
    (token,) = fleet[0].tokens
    del fleet[0].tokens[token]
    fleet[0].unassign("times")  # lets the poll end
    device.wait(lambda: device.status()["refused"] is not None)
    assert "no longer knows this device" in device.command("status").stdout
    assert device.current("times") == "releases/1"
    fleet[0].tokens[token] = "device-1"
    device.wait(lambda: device.status()["refused"] is None)


@pytest.mark.parametrize("command", ["status", "run", "enrol"])
def test_a_home_that_is_a_file_is_named(tmp_path: Path, command: str) -> None:
    (tmp_path / "file").write_text("mine")
    more = ["--server", "http://127.0.0.1:9", "--join-token", "x", "--trust-first-root"]
    device = Device(tmp_path / "file", "")
    done = device.command(command, *(more if command == "enrol" else []), check=False)
    assert done.returncode == 2
    assert "is no folder" in done.stderr.replace("\n", " ")


def test_the_first_root_is_held_to_its_hash(
    fleet: Server, repository_here: TinyRepository, tmp_path: Path
) -> None:
    device = Device(tmp_path / "new", fleet[1])
    arguments = ("enrol", "--server", fleet[1], "--join-token", "join")
    assert "--root-sha256" in device.command(*arguments, check=False).stderr
    other = device.command(*arguments, "--root-sha256", "0" * 64, check=False)
    assert other.returncode == 1
    assert "another repository" in other.stderr.replace("\n", " ")
    assert fleet[0].tokens == {}
    device.command(*arguments, "--root-sha256", sha256_of(repository_here.first_root))
    assert len(fleet[0].tokens) == 1


def test_a_device_that_is_not_enrolled_says_what_to_do(tmp_path: Path) -> None:
    done = Device(tmp_path / "new", "").command("run", check=False)
    assert done.returncode == 2
    assert "edgeml agent enrol" in done.stderr


# --- the process


def test_a_second_agent_says_so_and_leaves(device: Device) -> None:
    device.start()
    device.wait(lambda: device.status()["agent"] is not None)
    done = device.command("run", check=False)
    assert done.returncode == 1
    assert "another agent works" in done.stderr
    assert device.status()["agent"] is not None


def test_an_idle_agent_is_small(device: Device, fleet: Server) -> None:
    """Though ``cryptography`` is installed beside it."""
    device.start()
    try:
        fleet[0].assign("times", 1)
        fleet[0].wait_for_state("times", "COMMITTED", 1)
        fleet[0].wait_for(lambda found: found.reports[-1].models["times"].state == "IDLE")
        assert device.process is not None
        proc = Path(f"/proc/{device.process.pid}")
        resident_bytes = 1024 * int(proc.joinpath("status").read_text().partition("VmRSS:")[2].split()[0])
        loaded = proc.joinpath("maps").read_text()
    finally:
        device.kill()
    for name in ("numpy", "onnxruntime", "cryptography"):
        assert name not in loaded
    assert resident_bytes <= IDLE_LIMIT_BYTES


@pytest.mark.parametrize("damage", [lambda path: path.mkdir(), os.mkfifo], ids=["folder", "pipe"])
def test_an_agent_starts_in_a_damaged_home_and_says_what_is_wrong(
    device: Device, fleet: Server, damage: Callable[[Path], None]
) -> None:
    device.start()
    fleet[0].assign("times", 1)
    fleet[0].wait_for_state("times", "COMMITTED", 1)
    device.stop()
    for name in ("desired.json", "outbox/events.json", "outbox/health.json", "health.sock"):
        (device.home / name).unlink(missing_ok=True)
        damage(device.home / name)
    (device.home / "trust/floors.json").write_bytes(b"[" * 100_000)
    device.start()
    fleet[0].assign("times", 2)
    fleet[0].wait_for_state("times", "COMMITTED", 2)
    _, log = device.stop()
    for name in ("desired.json", "events.json", "health.json"):
        assert f"{name} cannot be read" in log
    assert (device.home / "desired.json").is_file()


def test_status_tells_people_what_runs(device: Device, fleet: Server) -> None:
    device.start()
    fleet[0].assign("times", 1)
    fleet[0].wait_for_state("times", "COMMITTED", 1)
    device.wait(lambda: device.record("times")["state"] == "IDLE")
    shown = device.command("status").stdout
    assert "agent runs" in shown
    assert "onnxruntime-float32" in shown
    assert "COMMITTED" in shown
    device.stop()
    assert "no agent runs" in device.command("status").stdout


# --- carried by hand


def exported(repository: TinyRepository, folder: Path, release: int) -> Path:
    """Copy what one release needs, as `edgeml releases export` does."""
    for part in ("metadata", "blobs"):
        shutil.copytree(repository.folder / part, folder / part)
    for path in (repository.folder / "targets" / "models" / "times").glob(f"*.{release}.json"):
        place = folder / "targets" / "models" / "times" / path.name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, place)
    return folder


def test_a_release_is_carried_to_a_device_without_a_server(
    repository_here: TinyRepository, tmp_path: Path
) -> None:
    device = Device(tmp_path / "alone", "")
    folder = exported(repository_here, tmp_path / "usb", 1)
    assert "--root" in device.command("install-bundle", str(folder), check=False).stderr
    root = tmp_path / "root.json"
    root.write_bytes(repository_here.first_root)
    done = device.command("install-bundle", str(folder), "--root", str(root), "--json")
    assert json.loads(done.stdout)["result"] == "SUCCESSFUL"
    assert device.current("times") == "releases/1"
    # the same trust: a tampered file is refused, and what ran goes on
    other = exported(repository_here, tmp_path / "usb2", 2)
    for blob in (other / "blobs" / "sha256").iterdir():
        blob.write_bytes(blob.read_bytes()[:-1] + b"?")
    failed = device.command("install-bundle", str(other), check=False)
    assert failed.returncode == 1
    assert "FAILED" in failed.stdout
    assert device.current("times") == "releases/1"


def test_a_release_is_carried_to_a_running_agent(
    device: Device, fleet: Server, repository_here: TinyRepository, tmp_path: Path
) -> None:
    device.start()
    fleet[0].assign("times", 1)
    fleet[0].wait_for_state("times", "COMMITTED", 1)
    done = device.command("install-bundle", str(exported(repository_here, tmp_path / "usb", 2)))
    assert "handed to the agent" in done.stdout
    fleet[0].wait_for_state("times", "COMMITTED", 2)
    device.wait(lambda: not list((device.home / "inbox").iterdir()))
    # what the server said before does not come back; it wins once it says something new
    fleet[0].wait_for(lambda found: found.reports[-1].models["times"].state == "IDLE")
    assert device.current("times") == "releases/2"
    fleet[0].assign("times", 1, attempt=2)
    fleet[0].wait_for(lambda found: found.states("times").count("COMMITTED") == 3)
    committed = [one for one in fleet[0].events.values() if one.state == "COMMITTED"]
    assert [(one.release, one.attempt) for one in committed] == [(1, 1), (2, 1), (1, 2)]
    assert device.current("times") == "releases/1"


def test_a_bundle_that_nobody_signed_needs_a_device_without_trust(
    device: Device, repository_here: TinyRepository, tmp_path: Path
) -> None:
    bundle = tmp_path / "bundles" / "times-1.edgeml"
    refused = device.command("install-bundle", str(bundle), "--unsigned", check=False)
    assert refused.returncode == 2
    assert "signed releases only" in refused.stderr
    alone = Device(tmp_path / "alone", "")
    alone.command("install-bundle", str(bundle), "--unsigned")
    assert alone.current("times") == "releases/1"


# --- proxies and the unit


def test_it_works_through_a_proxy_of_the_environment(
    repository_here: TinyRepository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A forward proxy gets absolute URLs; the fixture server answers those of any host."""
    with serving(repository_here.folder) as (fleet, url):
        device = Device(tmp_path / "behind", "http://fleet.invalid")
        root = tmp_path / "root.json"
        root.write_bytes(repository_here.first_root)
        monkeypatch.setenv("http_proxy", url)
        device.command("enrol", "--server", device.url, "--join-token", "join", "--root", str(root))
        assert list(fleet.tokens.values()) == ["device-1"]
        assert fleet.requests[0][1] == "http://fleet.invalid/v1/enrol"


def test_the_unit_is_one_that_systemd_takes(tmp_path: Path) -> None:
    text = Device(tmp_path, "").command("install", "--print").stdout
    assert "ExecStart=" in text
    assert "Environment=EDGEML_HOME=/var/lib/edgeml" in text
    require(shutil.which("systemd-analyze"), "systemd-analyze is not here")
    unit = tmp_path / "edgeml-agent.service"
    unit.write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_units_home_is_a_whole_path(tmp_path: Path) -> None:
    text = Device(tmp_path / "new", "").command("install", "--print", "--home", "mine").stdout
    assert f"Environment=EDGEML_HOME={tmp_path / 'mine'}" in text


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
