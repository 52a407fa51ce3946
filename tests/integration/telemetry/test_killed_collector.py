"""A collector that is killed loses nothing that it acknowledged, and stores nothing twice."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from edgeml_devices.server.settings import ServerSettings

from tests.integration.server_process import ServerProcess
from tests.integration.telemetry.senders import Sender, enrolled, ride, stored_times

KILLS = 3
DEVICES = 4
PAUSE_S = (0.1, 0.8)


def test_each_window_is_stored_once_however_often_the_collector_is_killed(
    server: ServerProcess, database_url: str
) -> None:
    senders = [Sender(server, enrolled(server, f"device-{n}"), n) for n in range(DEVICES)]
    ride(server, KILLS, senders, PAUSE_S)
    server.stop()
    assert_stored_once(senders, server.data, database_url)


def assert_stored_once(senders: list[Sender], data: Path, database_url: str) -> None:
    made = [round(report.at * 1e6) for sender in senders for report in sender.made]
    stored = asyncio.run(stored_times(ServerSettings(data, database_url)))
    repeated = sum(sender.repeated for sender in senders)
    print(f"\n{len(made)} windows made, {len(stored)} stored, {repeated} answers lost")
    assert repeated > 0, "no answer was lost: this run shows nothing"
    assert stored.keys() == set(made), "lost or invented"
    assert max(stored.values()) == 1, "stored twice"


def test_without_the_key_windows_are_stored_twice(server: ServerProcess, database_url: str) -> None:
    """What the run above would look like if a repetition could not be told: it can fail."""
    senders = [Sender(server, enrolled(server, f"device-{n}"), n, keyed=False) for n in range(2)]
    ride(server, KILLS, senders, PAUSE_S)
    server.stop()
    stored = asyncio.run(stored_times(ServerSettings(server.data, database_url)))
    assert max(stored.values()) > 1


@pytest.mark.soak
def test_two_hundred_kills(server: ServerProcess, database_url: str) -> None:
    senders = [Sender(server, enrolled(server, f"device-{n}"), n) for n in range(DEVICES)]
    ride(server, 200, senders, (0.0, 0.6))
    server.stop()
    assert_stored_once(senders, server.data, database_url)
