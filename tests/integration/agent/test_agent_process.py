"""The agent as a process of a machine: one, small, robust, and a unit of systemd."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import require
from tests.integration.agent.fixture_server import Server
from tests.integration.agent.processes import Device

IDLE_LIMIT_BYTES = 40_000_000


def test_a_second_agent_says_so_and_leaves(device: Device) -> None:
    device.start()
    device.wait(lambda: device.status()["agent"] is not None)
    done = device.command("run", check=False)
    assert done.returncode == 1
    assert "another agent works" in done.stderr
    assert device.status()["agent"] is not None


def test_an_idle_agent_is_small(
    device: Device, fleet: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is installed beside it; from compiled modules, as on a device."""
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    monkeypatch.setenv("PYTHONPYCACHEPREFIX", str(tmp_path / "compiled"))
    device.start()
    for release in (1, 2):
        fleet[0].assign("times", release)
        fleet[0].wait_for_state("times", "COMMITTED", release)
    device.stop()
    device.start()
    try:
        fleet[0].assign("times", 1)
        fleet[0].wait_for(lambda found: found.reports[-1].models["times"].running == 1)
        fleet[0].wait_for(lambda found: found.reports[-1].models["times"].state == "IDLE")
        assert device.process is not None
        proc = Path(f"/proc/{device.process.pid}")
        resident_bytes = 1024 * int(proc.joinpath("status").read_text().partition("VmRSS:")[2].split()[0])
        loaded = proc.joinpath("maps").read_text()
    finally:
        device.kill()
    for name in ("numpy", "onnxruntime", "cryptography", "msgspec"):
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
