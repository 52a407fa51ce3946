"""From an inference to a row of the server, through the agent, with nothing in between faked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeml.telemetry.recording import recorder
from edgeml.telemetry.settings import TelemetrySettings
from tests.integration.agent.processes import Device
from tests.integration.publish.workshop import Workshop
from tests.integration.server_process import ServerProcess
from tests.waiting import eventually


@pytest.fixture
def device(process: ServerProcess, tmp_path: Path) -> Iterator[Device]:
    """A device that has joined; its agent cuts a window each second."""
    shop = Workshop(tmp_path / "workshop", process.url, process.admin_token, "times")
    shop.do("repo", "init")
    device = Device(tmp_path / "home", process.url, EDGEML_TELEMETRY_FOLDER=str(tmp_path / "rings"))
    token = shop.ask("tokens", "join")
    device.join(token, "hall-2")
    (device.home / "agent.toml").write_text("telemetry_window_s = 1\n")
    yield device
    device.kill()


def calls(process: ServerProcess) -> int:
    status, answer = process.call("GET", "/v1/telemetry/rate?model=times")
    assert status == 200, answer
    return sum(one["calls"] for one in answer["answers"])


def record(device: Device, count: int) -> None:
    settings = TelemetrySettings(folder=str(device.home.parent / "rings"))
    with recorder("times", release=1, variant="a", settings=settings) as one:
        for number in range(count):
            one.record(0.01, label=f"class {number % 3}", confidence=0.9)


def test_what_a_process_recorded_arrives_once_though_the_agent_and_the_server_are_killed(
    process: ServerProcess, device: Device
) -> None:
    record(device, 100)  # before there is an agent
    device.start()
    eventually(lambda: calls(process) == 100, "100 calls")
    device.kill()
    record(device, 50)
    process.kill()
    device.start()
    record(device, 25)
    eventually(lambda: device.status()["telemetry"]["reports"] > 1, "windows wait for the server")
    process.start(port=int(process.url.rpartition(":")[2]))
    eventually(lambda: calls(process) == 175, "175 calls")
    eventually(lambda: device.status()["telemetry"]["reports"] <= 1, "nothing waits")
    assert calls(process) == 175
    _, answer = process.call("GET", "/v1/telemetry/coverage")
    (covered,) = answer["answers"]
    assert (covered["missing"], covered["evicted"], covered["damaged"], covered["overwritten"]) == (
        0,
        0,
        0,
        0,
    )
    assert (covered["epochs"], covered["boots"]) == (1, 1)
    _, answer = process.call("GET", "/v1/telemetry/machine")
    assert answer["answers"][0]["quantities"]["memory_bytes"]["mean"] > 1e6


def test_status_says_what_waits_and_what_was_lost(process: ServerProcess, device: Device) -> None:
    process.kill()
    device.start()
    eventually(lambda: (device.status()["telemetry"] or {}).get("windows", 0) >= 2, "two windows wait")
    shown = device.status()["telemetry"]
    assert shown["acked_at"] is None
    assert shown["windows"] == shown["reports"] == shown["last_seq"] + 1
    assert shown["size_bytes"] > 100
    text = device.command("status").stdout
    assert "windows wait" in text
    assert "never sent; nothing lost" in text


def test_the_last_window_is_kept_when_the_agent_is_told_to_stop(
    process: ServerProcess, device: Device
) -> None:
    (device.home / "agent.toml").write_text("telemetry_window_s = 3600\n")
    device.start()
    eventually(lambda: device.status()["telemetry"] is not None, "there is a spool")
    record(device, 10)
    code, _ = device.stop()
    assert code == 0
    assert device.status()["telemetry"]["windows"] == 1
    device.start()
    eventually(lambda: calls(process) == 10, "10 calls")


def test_telemetry_can_be_turned_off(device: Device) -> None:
    (device.home / "agent.toml").write_text("telemetry = false\n")
    device.start()
    eventually(lambda: "agent of" in device.log.read_text(), "the agent runs")
    assert device.stop()[0] == 0
    assert not (device.home / "spool").exists()
    assert device.status()["telemetry"] is None
