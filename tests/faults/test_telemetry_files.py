"""What happens to the SQLite store's files while a server writes them: nothing is lost without a word."""

from __future__ import annotations

import os
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from edgeml_devices.server.telemetry.day_files import CATALOGUE

from tests.attacks.telemetry.hostile import Attacker, Operator, window
from tests.integration.server_process import ServerProcess
from tests.waiting import eventually


def told(server: ServerProcess) -> tuple[dict[str, Any], int]:
    """Give a device's coverage, and the calls of the hourly sums."""
    _, coverage = server.call("GET", "/v1/telemetry/coverage")
    _, rates = server.call("GET", "/v1/telemetry/rate")
    (row,) = coverage["answers"]
    return row, rates["answers"][0]["calls"]


def test_a_day_that_was_removed_begins_anew_and_says_what_is_missing(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "server") as server:
        device = Attacker(server, "pi")
        for _ in range(3):
            assert device.send(device.report(window()))[0] == 200
        eventually(lambda: added_up(tmp_path / "server" / "telemetry") == 3, "the hourly sums hold them")
        for file in (tmp_path / "server" / "telemetry").glob("2*.db*"):
            file.unlink()
        for _ in range(2):
            assert device.send(device.report(window()))[0] == 200
        assert server.printed("was removed while it was written")
        server.kill()
        server.start()
        eventually(lambda: added_up(tmp_path / "server" / "telemetry") == 2, "the hourly sums hold these too")
        coverage, calls = told(server)
    assert (coverage["received"], coverage["missing"]) == (2, 3)
    assert calls == 50


def added_up(folder: Path) -> int:
    """Give how many reports of today's file the hourly sums hold."""
    with closing(sqlite3.connect(folder / CATALOGUE)) as catalogue:
        (held,) = catalogue.execute("SELECT coalesce(sum(report), 0) FROM rolled").fetchone()
    return int(held)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("only root may mount a small disk")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_is_a_pause_and_no_loss(small_disk: Path) -> None:
    sample = {"at": 1.0, "why": "random"}
    with ServerProcess(small_disk / "server") as server:
        device, stored = Attacker(server, "pi"), 0
        while True:
            samples = [sample | {"raw": os.urandom(12_000)}] * 5
            report = device.report(window(samples=samples))
            status, said = device.send(report)
            if status != 200:
                break
            stored += 1
        assert (status, said["error"]["type"]) == (503, "busy")
        assert server.printed("the database failed: database or disk is full")
        assert server.call("GET", "/v1/telemetry/rate")[1]["answers"][0]["calls"] == 10 * stored
        subprocess.run(["mount", "-o", "remount,size=40m", str(small_disk)], check=True)
        assert device.send(report)[0] == 200
        coverage, calls = told(server)
        assert Operator(server).failures("pi") == []
    assert (coverage["received"], coverage["missing"]) == (stored + 1, 0)
    assert calls == 10 * (stored + 1)
