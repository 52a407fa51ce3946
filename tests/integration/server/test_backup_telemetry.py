"""Telemetry in a back-up: taken while devices send, restored once, and devices go on with it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.attacks.telemetry.hostile import Attacker as Device
from tests.attacks.telemetry.hostile import Operator, window
from tests.integration.server_process import ServerProcess


@pytest.fixture
def other_url(request: pytest.FixtureRequest, database_url: str, tmp_path: Path) -> Iterator[str]:
    """An empty database of the same kind."""
    if database_url.startswith("sqlite"):
        yield f"sqlite:///{tmp_path / 'other.db'}"
        return
    postgres = request.getfixturevalue("postgres")
    url = postgres.create()
    yield url
    postgres.drop(url)


def edgeml(url: str, *words: object) -> Any:
    command = [sys.executable, "-m", "edgeml", *map(str, words), "--json"]
    environment = os.environ | {"EDGEML_DATABASE": url}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def told(server: ServerProcess) -> tuple[int, int, int, int]:
    """Give windows received and missing, calls of the hours, and calls of all time."""
    (row,) = server.call("GET", "/v1/telemetry/coverage")[1]["answers"]
    (rate,) = server.call("GET", "/v1/telemetry/rate")[1]["answers"]
    metrics = server.call("GET", "/metrics")[1].decode()
    found = re.search(r"^edgeml_inferences_total\{.*\} (\S+)$", metrics, re.MULTILINE)
    assert found is not None
    return row["received"], row["missing"], rate["calls"], round(float(found[1]))


def test_devices_go_on_and_each_window_counts_once(
    server: ServerProcess, database_url: str, other_url: str, tmp_path: Path
) -> None:
    device = Device(server, "pi")
    assert device.send(*[device.report(window()) for _ in range(2)])[0] == 200
    # until hours hold these, and not the next one
    time.sleep(3)
    last = device.report(window())
    assert device.send(last)[0] == 200
    place = ("--data", server.data)
    made = edgeml(database_url, "server", "backup", tmp_path / "b.tar", "--telemetry", *place)
    assert made["telemetry"]
    # what the server that is lost acknowledged after it
    assert device.send(device.report(window()), device.report(window()))[0] == 200
    token = server.admin_token
    server.stop()
    folder = tmp_path / "restored"
    done = edgeml(other_url, "server", "restore", tmp_path / "b.tar", "--data", folder)
    assert done["telemetry"]
    with ServerProcess(folder, other_url, admin_token=token) as restored:
        device.server = restored
        assert told(restored) == (3, 0, 30, 30)
        # its answer was lost
        assert device.send(last)[0] == 200
        status, said = device.send(device.report(window()))
        assert (status, said["acked_through"], said["gaps"]) == (200, 5, [[3, 4]])
        another = Device(restored, "another")
        assert another.send(another.report(window(model="new", classes={"new": 1})))[0] == 200
        time.sleep(3)
        assert Operator(restored).failures("pi") == []
        rows = restored.call("GET", "/v1/telemetry/coverage")[1]["answers"]
        (row,) = (row for row in rows if row["device"] == "pi")
        rates = restored.call("GET", "/v1/telemetry/rate?by=model")[1]["answers"]
    assert (row["received"], row["missing"]) == (4, 2)
    assert {one["key"]["model"]: one["calls"] for one in rates} == {"kws": 40, "new": 10}


def test_telemetry_of_another_kind_of_database_is_left_out_and_that_is_said(
    server: ServerProcess, database_url: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    device = Device(server, "pi")
    assert device.send(device.report(window()))[0] == 200
    file, folder = tmp_path / "b.tar", tmp_path / "restored"
    edgeml(database_url, "server", "backup", file, "--telemetry", "--data", server.data)
    url = f"sqlite:///{tmp_path / 'other.db'}"
    if database_url.startswith("sqlite"):
        url = request.getfixturevalue("postgres").create()
    done = edgeml(url, "server", "restore", file, "--data", folder)
    assert done["telemetry"] is False
    with ServerProcess(folder, url, admin_token=server.admin_token) as restored:
        device.server = restored
        assert device.send(device.report(window()))[1]["gaps"] == [[0, 0]]
