"""The whole story on machines: enrol, roll out, three bad releases, a board without network, telemetry."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from edgeml_devices.emulator.machine.launch import Setup, Snapshot
from edgeml_devices.emulator.machine.machine import Machine

from tests.integration.emulator.fleets import AS_EDGEML, Fleet, release
from tests.integration.publish.workshop import Workshop
from tests.integration.server_process import ServerProcess
from tests.waiting import eventually

APPLICATION = """
import os, time, numpy, edgeml
with edgeml.load("digits") as model:
    while not os.path.exists("/run/application.stop"):
        model(numpy.zeros((1, 8, 8, 1), "float32"))
        if model.release == 4:
            os.abort()
        time.sleep(0.05)
"""
CALLS = 300
COUNTED = f"""
import numpy, edgeml
with edgeml.load("digits") as model:
    for _ in range({CALLS}):
        model(numpy.zeros((1, 8, 8, 1), "float32"))
    print(model.release)
"""


@pytest.fixture(scope="module")
def boards(setup: Setup, snapshot: Snapshot) -> Iterator[list[Machine]]:
    with ExitStack() as stack:
        yield [stack.enter_context(Machine.start(setup, snapshot=snapshot)) for _ in range(3)]


@pytest.fixture
def fleet(tmp_path: Path, boards: list[Machine]) -> Iterator[Fleet]:
    with ServerProcess(tmp_path / "server") as server:
        shop = Workshop(tmp_path / "workshop", server.url, server.admin_token, "digits")
        shop.do("repo", "init")
        yield Fleet(server, shop, {})


def begin_application(machine: Machine) -> None:
    """Start an application that is started again whenever it ends, as a service is."""
    machine.sh("rm -f /run/application.stop")
    machine.run(["sh", "-c", f"cat >/opt/application.py <<'END'\n{APPLICATION}\nEND"])
    loop = "while [ ! -e /run/application.stop ]; do python3 /opt/application.py; sleep 1; done"
    machine.sh(f"{AS_EDGEML} setsid sh -c '{loop}' </dev/null >/dev/null 2>&1 &")


def count(machine: Machine) -> str:
    return machine.sh(f"{AS_EDGEML} python3 - <<'END'\n{COUNTED}\nEND").strip()


@pytest.mark.soak
def test_the_whole_story(fleet: Fleet, boards: list[Machine], tmp_path: Path) -> None:
    one, two, third = boards
    third.network(on=False)
    first = release(tmp_path, 1)
    said = fleet.shop.ask("deploy", first, "--to", f"serial:socket://127.0.0.1:{third.ports.serial}")
    assert said["devices"][0]["result"] == "SUCCESSFUL", said

    for name, machine in (("hall-1", one), ("hall-2", two)):
        fleet.join(name, machine)
    fleet.shop.do("publish", first)
    assert fleet.roll_out(1)["state"] == "FINISHED"
    assert fleet.running() == {1}

    for machine in (one, two):
        begin_application(machine)
    bad = {
        2: (release(tmp_path, 2, wrong=True), {"parity"}),
        3: (release(tmp_path, 3, selftest_max_latency_p95_ms=0.0001), {"latency"}),
        4: (
            release(tmp_path, 4, heartbeat="required", heartbeat_timeout_s=5.0, probation_s=30.0),
            {"heartbeat"},
        ),
    }
    for number, (bundle, reasons) in bad.items():
        fleet.shop.do("publish", bundle)
        ended = fleet.roll_out(number)
        assert ended["state"] == "ABORTED", ended
        eventually(lambda: fleet.running() == {1}, "release 1 again", within_s=200)
        assert fleet.failures(number) == reasons

    for name, machine in fleet.machines.items():
        machine.sh("touch /run/application.stop")
        # who failed three times is in the penalty box
        assert fleet.server.call("DELETE", f"/v1/devices/{name}/penalty")[0] == 200
    third.network(on=True)
    fleet.join("cellar", third)
    assert fleet.running() == {1}
    # those that release 4 ended never said that they are done: by then they are known to be gone
    fleet.shop.do("publish", release(tmp_path, 5, heartbeat_timeout_s=5.0))
    assert fleet.roll_out(5)["state"] == "FINISHED"
    assert [count(machine) for machine in boards] == ["5", "5", "5"]

    def arrived() -> dict[str, int]:
        said = fleet.shop.ask("telemetry", "rate", "--model", "digits/5", "--by", "device", "--since", "1h")
        return {row["key"]["device"]: row["calls"] for row in said["answers"]}

    eventually(lambda: sum(arrived().values()) >= 3 * CALLS, "telemetry of all three", within_s=300)
    assert sorted(arrived().values()) == [CALLS] * 3, json.dumps(arrived())
