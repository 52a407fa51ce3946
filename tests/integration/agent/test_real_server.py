"""Repository, server, rollout of one device, agent: the real ones, end to end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.agent.bundles import scaled
from tests.integration.agent.processes import Device
from tests.integration.publish.workshop import Workshop
from tests.integration.server_process import ServerProcess
from tests.waiting import eventually


@pytest.fixture
def shop(process: ServerProcess, tmp_path: Path) -> Workshop:
    """A workshop that has published releases 1 and 2 of ``times``."""
    shop = Workshop(tmp_path / "workshop", process.url, process.admin_token, "times")
    shop.do("repo", "init")
    for release in (1, 2):
        shop.do("publish", scaled(tmp_path / "bundles", release))
    return shop


@pytest.fixture
def joined(process: ServerProcess, shop: Workshop, tmp_path: Path) -> Iterator[Device]:
    """A device that joined with the command that the server's operator is shown, first root included."""
    device = Device(tmp_path / "home", process.url)
    token = shop.ask("tokens", "join", "--label", "site=berlin")
    device.join(token, "hall-2")
    yield device
    device.kill()


def events_of(process: ServerProcess, result: str | None = None) -> list[dict[str, Any]]:
    status, answer = process.call("GET", "/v1/devices/hall-2/events")
    assert status == 200, answer
    found = [one for one in answer["events"] if result is None or one.get("result") == result]
    return sorted(found, key=lambda one: one["seq"])


def assign(process: ServerProcess, release: int | None) -> None:
    status, answer = process.call(
        "PUT", "/v1/devices/hall-2/models/times", {"release": release, "hold": False}
    )
    assert status in {200, 204}, answer


def test_from_the_engineers_bundle_to_a_committed_release(
    process: ServerProcess, joined: Device, shop: Workshop
) -> None:
    joined.start()
    assign(process, 1)
    eventually(lambda: events_of(process, "SUCCESSFUL"), "release 1 committed")
    assign(process, 2)
    eventually(lambda: len(events_of(process, "SUCCESSFUL")) == 2, "release 2 committed")
    assert joined.current("times") == "releases/2"
    states = [one["state"] for one in events_of(process)]
    once = ["ACCEPTED", "FETCHING", "STAGED", "SELFTEST", "SWITCHING", "PROBATION", "COMMITTED"]
    assert states == [*once, *once]
    shown = shop.ask("devices", "show", "hall-2")
    assert "berlin" in json.dumps(shown)
    assert joined.stop()[0] == 0


def test_without_its_server_the_device_runs_on(process: ServerProcess, joined: Device) -> None:
    joined.start()
    assign(process, 1)
    eventually(lambda: events_of(process, "SUCCESSFUL"), "release 1 committed")
    port = int(process.url.rpartition(":")[2])
    process.kill()
    joined.kill()
    joined.log.unlink()
    joined.start()
    eventually(lambda: "cannot be reached" in joined.log.read_text(), "the server missed")
    assert joined.current("times") == "releases/1"
    process.start(port=port)
    assign(process, 2)
    eventually(lambda: len(events_of(process, "SUCCESSFUL")) == 2, "release 2 committed")
    assert joined.current("times") == "releases/2"


def test_an_export_of_the_workshop_is_installed_by_hand(
    process: ServerProcess, shop: Workshop, tmp_path: Path
) -> None:
    folder = tmp_path / "usb"
    shop.do("releases", "export", "times", 2, "--output", folder)
    device = Device(tmp_path / "alone", process.url)
    root = next((folder / "metadata").glob("1.root.json"))
    device.command("install-bundle", str(folder), "--root", str(root))
    assert device.current("times") == "releases/2"
