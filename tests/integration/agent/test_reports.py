"""Reports get through: whatever one item is like, and however much waits."""

from __future__ import annotations

import time

from edgeml_devices.agent.outbox import HEALTH_LIMIT, Outbox
from edgeml_devices.messages import Event, Health, Report, Result, State

from tests.integration.agent.fixture_server import Fleet, Server
from tests.integration.agent.processes import Device

BODY_LIMIT_BYTES = 256 * 1024


def fill(device: Device, events: int, windows: int = 0, detail: str = "") -> None:
    """Let a device have something to tell from before its agent starts."""
    outbox = Outbox(device.home / "outbox")
    for entry in range(1, events + 1):
        outbox.add_event(entry, Event(0, 1.0, "times", entry, 1, State.COMMITTED, Result.SUCCESSFUL))
    for number in range(windows):
        outbox.add_health(Health(0, 1.0, 10.0, "times", number, "v", 1, 1, 0, detail=detail))


def told(fleet: Fleet) -> list[int | None]:
    return sorted(event.release or 0 for event in fleet.events.values())


def test_one_event_that_the_server_refuses_holds_up_no_other(device: Device, fleet: Server) -> None:
    fill(device, 20)
    fleet[0].refuses = lambda report: any(event.release in {7, 8} for event in report.events)
    device.start()
    good = [release for release in range(1, 21) if release not in {7, 8}]
    fleet[0].wait_for(lambda found: told(found) == good)
    _, log = device.stop()
    assert log.count("dropped") == 2
    assert "release=7" in log


def test_one_window_that_the_server_refuses_holds_up_no_result(device: Device, fleet: Server) -> None:
    fill(device, 3, windows=5)
    fleet[0].refuses = lambda report: any(window.release == 2 for window in report.health)
    device.start()
    fleet[0].wait_for(
        lambda found: (
            told(found) == [1, 2, 3] and {one.release for one in found.health.values()} == {0, 1, 3, 4}
        )
    )


def test_a_server_that_refuses_all_reports_makes_a_device_forget_nothing(
    device: Device, fleet: Server
) -> None:
    fill(device, 3)
    refused: list[Report] = []

    def refuses(report: Report) -> bool:
        refused.append(report)
        return len(refused) < 6

    fleet[0].refuses = refuses
    device.start()
    fleet[0].wait_for(lambda found: told(found) == [1, 2, 3])
    assert not all(one.events for one in refused)


def test_a_server_that_stores_nothing_is_not_told_without_end(device: Device, fleet: Server) -> None:
    fill(device, 3)
    fleet[0].says_stored = False
    begun = time.monotonic()
    device.start()
    fleet[0].assign("times", 1)
    device.wait(lambda: device.current("times") == "releases/1")
    assert len(fleet[0].reports) < 6 + (time.monotonic() - begun) / 5
    fleet[0].says_stored = True
    device.wait(lambda: device.status()["unsent"] == {"events": 0, "health": 0})


def test_a_report_has_a_bounded_size_however_much_waits(device: Device, fleet: Server) -> None:
    fill(device, 2, windows=HEALTH_LIMIT, detail="\U0001f600" * 1000)
    device.start()
    fleet[0].wait_for(lambda found: len(found.health) == HEALTH_LIMIT)
    assert max(fleet[0].report_bytes) <= BODY_LIMIT_BYTES
    assert told(fleet[0]) == [1, 2]
