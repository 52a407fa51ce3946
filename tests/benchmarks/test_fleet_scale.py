"""10,000 devices on one server process, the fleet simulator on the same machine (2 cores)."""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import require
from tests.integration.server_process import ServerProcess
from tests.unit.core.release_folders import digits

DEVICES = 10_000
SIMULATOR = Path(__file__).with_name("simulated_fleet.py")
SERVER_MEMORY_BYTES = 500e6
SIMULATOR_MEMORY_BYTES = 1e9
EVERYONE_KNOWS_S = 30.0
POLLS_PER_S = 2_000
ROUNDS = 5


class Simulated:
    """The devices, in a process of their own."""

    def __init__(self, server: ServerProcess, join_token: str) -> None:
        argv = [sys.executable, str(SIMULATOR), "--server", server.url, "--join-token", join_token]
        self._process = subprocess.Popen(
            [*argv, "--devices", str(DEVICES)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the simulator ended"
        found: dict[str, Any] = json.loads(line)
        return found

    def ask(self, question: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{question}\n")
        self._process.stdin.flush()
        return self.answer()

    def stop(self) -> None:
        self._process.communicate(timeout=60)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    require(hard > DEVICES + 1000, f"{DEVICES} connections need as many open files; ulimit -Hn is {hard}")
    folder = tmp_path_factory.mktemp("scale")
    with ServerProcess(folder / "server") as process:
        edgeml(process, folder, "repo", "init")
        for release in (1, 2):
            edgeml(process, folder, "publish", str(digits(folder / str(release), release)))
        yield process


@pytest.fixture(scope="module")
def fleet(server: ServerProcess) -> Iterator[Simulated]:
    status, token = server.call(
        "POST", "/v1/join-tokens", {"uses": DEVICES, "ttl_s": 3600, "labels": {"site": "sim"}}
    )
    assert status in {200, 201}, token
    simulated = Simulated(server, token["token"])
    enrolled = simulated.answer()
    print(f"\n{DEVICES} devices enrolled in {enrolled['seconds']:.0f} s")
    wait_until(lambda: simulated.ask("counts")["polling"] == DEVICES, 120)
    yield simulated
    simulated.stop()


def test_ten_thousand_waiting_devices_fit_into_500_mb(server: ServerProcess, fleet: Simulated) -> None:
    time.sleep(5)
    used = resident_bytes(server.pid)
    print(f"\n{DEVICES} waiting: {used / 1e6:.0f} MB")
    assert used <= SERVER_MEMORY_BYTES


def test_polls_with_ten_thousand_others_waiting(server: ServerProcess, fleet: Simulated) -> None:
    rates = []
    for _ in range(ROUNDS):
        found = fleet.ask("polls 4")
        rates.append(found["polls"] / found["seconds"])
    print(f"\npolls per second: {', '.join(f'{rate:.0f}' for rate in rates)}")
    assert statistics.median(rates) >= POLLS_PER_S


@pytest.mark.parametrize("release", [1, 2])
def test_a_change_reaches_all_and_the_rollout_counts_them(
    server: ServerProcess, fleet: Simulated, release: int
) -> None:
    policy = {"model": "digits", "release": release, "selector": "site=sim"}
    status, rollout = server.call("POST", "/v1/rollouts", policy)
    assert status == 201, rollout
    name = rollout["id"]
    begun = time.monotonic()
    assert server.call("POST", f"/v1/rollouts/{name}/start")[0] == 200
    wait_until(lambda: server.call("GET", f"/v1/rollouts/{name}")[1]["state"] == "FINISHED", 300)
    ended = time.monotonic()
    counts = fleet.ask("counts")
    shown = server.call("GET", f"/v1/rollouts/{name}")[1]
    print(
        f"\nrelease {release}: first device told after {counts['first'] - begun:.1f} s, "
        f"last after {counts['last'] - begun:.1f} s, finished after {ended - begun:.1f} s; "
        f"server {resident_bytes(server.pid) / 1e6:.0f} MB"
    )
    assert counts["failed"] == []
    assert counts["running"] == {f"digits/{release}": DEVICES}
    assert [wave["counts"]["succeeded"] for wave in shown["waves"]] == [DEVICES]
    assert counts["last"] - begun <= EVERYONE_KNOWS_S
    assert resident_bytes(server.pid) <= SERVER_MEMORY_BYTES


def edgeml(server: ServerProcess, folder: Path, *arguments: str) -> None:
    environment = os.environ | {
        "EDGEML_SERVER": server.url,
        "EDGEML_TOKEN": server.admin_token,
        "EDGEML_KEYS": str(folder / "keys"),
    }
    subprocess.run(
        [sys.executable, "-m", "edgeml", *arguments], check=True, capture_output=True, env=environment
    )


def resident_bytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))


def wait_until(condition: Any, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.5)
