"""The agent as a process: joins, installs, switches, reports, and stops."""

from __future__ import annotations

from edgeml_devices.messages import Result

from tests.integration.agent.fixture_server import Fleet
from tests.integration.agent.processes import Device

QUICK = ["ACCEPTED", "FETCHING", "STAGED", "SELFTEST", "SWITCHING", "PROBATION", "COMMITTED"]


def test_a_release_goes_all_the_way(device: Device, fleet: tuple[Fleet, str]) -> None:
    device.start()
    fleet[0].assign("times", 1)
    event = fleet[0].wait_for_state("times", "COMMITTED", 1)
    assert event.result is Result.SUCCESSFUL
    assert fleet[0].states("times") == QUICK
    assert device.current("times") == "releases/1"
    code, log = device.stop()
    assert code == 0, log
