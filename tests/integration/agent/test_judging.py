"""A device that is offline says itself whether its model still sees what it was made for."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import edgeml
from edgeml.cli import main
from edgeml.reference_data import ReferenceMaker
from edgeml.tally import FEATURES_EVERY_S
from edgeml.telemetry import start
from edgeml.telemetry.recording import recorder
from edgeml.telemetry.reference import reference_to_json
from edgeml.telemetry.settings import TelemetrySettings
from edgeml.tensors import TensorSpec
from tests.integration.agent.bundles import VARIANT, scaled
from tests.integration.agent.fixture_server import serving
from tests.integration.agent.processes import Device
from tests.integration.agent.tiny_repository import TinyRepository
from tests.unit.core.release_folders import INPUTS, digits, install, switch

FEATURES = tuple(f"x[{place}]" for place in range(16))


def reference(random: np.random.Generator) -> dict[str, Any]:
    """Give the reference of inputs of ``times`` that are normally distributed."""
    maker = ReferenceMaker([TensorSpec("x", (1, 16), "float32")])
    for _ in range(2000):
        maker.add_inputs({"x": random.normal(size=(1, 16))})
    made = maker.reference()
    assert made is not None
    return reference_to_json(made)


def record(device: Device, rows: np.ndarray) -> None:
    settings = TelemetrySettings(folder=str(device.home.parent / "rings"))
    with recorder("times", release=1, variant=VARIANT, features=FEATURES, settings=settings) as one:
        for row in rows:
            one.record(0.01, features=row.tolist())


def drift(device: Device, values: int, after: float = 0.0) -> dict[str, Any]:
    """Wait until the device has judged so many values; give what it says of the model."""

    def shown() -> dict[str, Any]:
        (one,) = (device.status()["drift"] or {"models": [{"values": 0, "at": None}]})["models"]
        return one

    device.wait(lambda: shown()["values"] >= values and shown()["at"] > after)
    return shown()


def test_a_device_offline_finds_shifted_data_and_not_others_though_it_is_started_anew(tmp_path: Path) -> None:
    random = np.random.default_rng(5)
    repository = TinyRepository(tmp_path / "repository", {"times": "times"})
    repository.publish(scaled(tmp_path / "bundles", 1, drift=reference(random)))
    with serving(repository.folder) as (fleet, url):
        device = Device(tmp_path / "home", url, EDGEML_TELEMETRY_FOLDER=str(tmp_path / "rings"))
        device.enrol(repository.first_root)
        (device.home / "agent.toml").write_text("telemetry_window_s = 1\n")
        device.start()
        fleet.assign("times", 1)
        fleet.wait_for_state("times", "COMMITTED", 1)
        assert device.status()["drift"] is None
    try:
        record(device, random.normal(size=(400, 16)))
        calm = drift(device, 400)
        assert (calm["release"], calm["judged"], calm["findings"], calm["slow"]) == (1, 17, [], [])
        assert "drift: times 1: none; 400 values of" in device.command("status").stdout
        device.kill()
        assert drift(device, 400) == calm

        # before the start: all of it comes to one judgement
        record(device, random.normal(0.7, 1, size=(400, 16)))
        device.start()
        drifted = drift(device, 400, calm["at"])
        assert {one["name"] for one in drifted["findings"]} == {*FEATURES, "joint"}
        assert drifted["slow"] == []
        device.kill()

        record(device, random.normal(0.7, 1, size=(400, 16)))
        device.start()  # the sums go on: half of the way was gone before
        lasting = drift(device, 400, drifted["at"])
        assert {(one["name"], one["direction"]) for one in lasting["slow"]} >= {(f, "up") for f in FEATURES}
        assert all(calm["at"] < one["since"] < drifted["at"] for one in lasting["slow"])
        text = device.command("status").stdout
        assert "drift: times 1: DRIFTED: " in text
        assert "x[0] w1 0." in text
        code, log = device.stop()
        assert code == 0
        assert log.count("times 1: drifted: ") == 1
        assert log.count("drifts slowly: x[0] up") == 1
        assert "Traceback" not in log
    finally:
        device.kill()


def test_a_damaged_reference_is_told_once_and_stops_nothing(tmp_path: Path) -> None:
    repository = TinyRepository(tmp_path / "repository", {"times": "times"})
    repository.publish(scaled(tmp_path / "bundles", 1, drift={"digest": "none"}))
    with serving(repository.folder) as (fleet, url):
        device = Device(tmp_path / "home", url, EDGEML_TELEMETRY_FOLDER=str(tmp_path / "rings"))
        device.enrol(repository.first_root)
        (device.home / "agent.toml").write_text("telemetry_window_s = 1\n")
        device.start()
        try:
            fleet.assign("times", 1)
            fleet.wait_for_state("times", "COMMITTED", 1)
            for _ in range(3):
                before = (device.status()["telemetry"] or {"last_seq": -1})["last_seq"]
                record(device, np.zeros((40, 16)))
                device.wait(lambda seen=before: device.status()["telemetry"]["last_seq"] > seen)
            _, log = device.stop()
        finally:
            device.kill()
    assert device.status()["drift"] is None
    assert log.count("its reference cannot be read") == 1
    assert "Traceback" not in log


def test_status_tells_it_too_where_a_process_keeps_telemetry_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(5)
    home, token = tmp_path / "home", tmp_path / "token"
    monkeypatch.setenv("EDGEML_HOME", str(home))
    monkeypatch.setenv("EDGEML_TELEMETRY_FOLDER", str(tmp_path / "rings"))
    token.write_text("secret\n")
    maker = ReferenceMaker(INPUTS)
    for _ in range(500):
        maker.add_inputs({"picture": random.normal(8, 2, (1, 8, 8, 1)).astype(np.float32)})
    made = maker.reference()
    assert made is not None
    switch(install(home, digits(tmp_path / "made", drift=reference_to_json(made))), 1)
    with start("http://127.0.0.1:9", token), edgeml.load("digits") as model:
        for _ in range(40):
            model(random.normal(6, 2, (1, 8, 8, 1)).astype(np.float32))
            time.sleep(FEATURES_EVERY_S)
    shown = json.loads(CliRunner().invoke(main, ["agent", "status", "--json"]).stdout)
    (drift,) = shown["drift"]["models"]
    assert (drift["model"], drift["release"], drift["reference"]) == ("digits", 1, made.digest)
    assert 30 <= drift["values"] <= 40
    assert "picture.mean" in {one["name"] for one in drift["findings"]}
    assert "drift: digits 1: DRIFTED: joint mmd" in CliRunner().invoke(main, ["agent", "status"]).stdout
