"""The scenarios in `examples/simulate`, by the command, against a real server with real releases."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import REPOSITORY
from tests.integration.server_process import ServerProcess
from tests.unit.core.release_folders import digits

SCENARIOS = REPOSITORY / "examples" / "simulate"
GATE_NOT_MET, INTERRUPTED = 3, 130
SOON_SETTLED = """
from edgeml.cli import main
from edgeml_devices.simulator import run
run._SETTLES_S = 10.0
main()
"""
"""The command, for runs after which the server holds something else: it need not wait so long."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("simulator")
    with ServerProcess(folder / "server") as process:
        edgeml(process, "repo", "init", EDGEML_KEYS=str(folder / "keys"))
        for release in (1, 2):
            bundle = digits(folder / str(release), release)
            edgeml(process, "publish", str(bundle), EDGEML_KEYS=str(folder / "keys"))
        yield process


def command(server: ServerProcess, *arguments: str) -> tuple[list[str], dict[str, str]]:
    environment = os.environ | {"EDGEML_SERVER": server.url, "EDGEML_TOKEN": server.admin_token}
    return [sys.executable, "-m", "edgeml", *arguments], environment


@pytest.fixture(scope="module")
def examples(server: ServerProcess) -> Iterator[dict[str, subprocess.Popen[str]]]:
    """Runs of examples, begun together: most of their time they wait."""
    names = ("small", "bad-release", "rough")
    running = {name: begin(server, SCENARIOS / f"{name}.toml") for name in names}
    yield running
    for process in running.values():
        process.kill()
        process.communicate()


def edgeml(server: ServerProcess, *arguments: str, **more: str) -> None:
    argv, environment = command(server, *arguments)
    subprocess.run(argv, check=True, capture_output=True, env=environment | more)


def simulate(server: ServerProcess, scenario: Path, *options: str, code: int = 0) -> dict[str, Any]:
    argv, environment = command(server, "simulate", str(scenario), "--json", *options)
    done = subprocess.run(argv, check=False, capture_output=True, text=True, env=environment, timeout=300)
    print(done.stdout, done.stderr)
    assert done.returncode == code, done.stderr + done.stdout
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def begin(
    server: ServerProcess,
    scenario: Path,
    *options: str,
    until: str = "all have joined",
    soon_settled: bool = False,
) -> subprocess.Popen[str]:
    """Begin a run; return once it has said something."""
    argv, environment = command(server, "simulate", str(scenario), "--json", *options)
    if soon_settled:
        argv[1:3] = ["-c", SOON_SETTLED]
    pipe = subprocess.PIPE
    process = subprocess.Popen(argv, stdout=pipe, stderr=pipe, text=True, env=environment)
    assert process.stderr is not None
    for line in process.stderr:
        if until in line:
            return process
    raise AssertionError(process.communicate(timeout=60))


def end(process: subprocess.Popen[str], code: int = 0) -> dict[str, Any]:
    shown, errors = process.communicate(timeout=300)
    assert process.returncode == code, shown + errors
    found: dict[str, Any] = json.loads(shown)
    return found


def away_for(server: ServerProcess, seconds: float) -> None:
    server.kill()
    time.sleep(seconds)
    server.start(port=int(server.url.rpartition(":")[2]))


def held(ran: dict[str, Any], what: str) -> list[str]:
    return [line["holds"] for line in ran["lines"] if line["what"] == what]


def test_the_server_holds_all_that_devices_say_on_a_network_that_loses_answers(
    examples: dict[str, subprocess.Popen[str]],
) -> None:
    ran = end(examples["small"])
    assert ran["good"]
    assert ran["answers_lost"] > 0
    assert ran["windows_sent_again"] > 0
    assert held(ran, "devices") == ["50"]
    assert int(held(ran, "windows that were lost")[0]) > 0


def test_a_bad_release_stops_and_the_one_before_stays(examples: dict[str, subprocess.Popen[str]]) -> None:
    ran = end(examples["bad-release"])
    assert held(ran, "rollout of digits/1") == ["FINISHED"]
    assert held(ran, "rollout of digits/2") == ["PAUSED"]
    assert int(held(ran, "devices that run digits/1")[0]) > 40
    assert ran["downloaded_bytes"] > 60 * 10_000


def test_clones_wrong_clocks_and_devices_without_network_are_counted_once(
    examples: dict[str, subprocess.Popen[str]],
) -> None:
    ran = end(examples["rough"])
    assert ran["further_epochs"] >= 10
    assert held(ran, "rollout of digits/2")[0] in {"RUNNING", "FINISHED"}


def test_a_server_that_is_killed_and_comes_back_costs_nothing(server: ServerProcess) -> None:
    """Whether it goes as rollouts begin or in the middle of them."""
    first = begin(server, SCENARIOS / "bad-release.toml")
    time.sleep(2)
    second = begin(server, SCENARIOS / "bad-release.toml")
    time.sleep(1)
    away_for(server, 4)
    for process in (first, second):
        ran = end(process)
        assert held(ran, "rollout of digits/1") == ["FINISHED"]
        assert held(ran, "rollout of digits/2") == ["PAUSED"]


def test_a_server_that_is_away_when_a_run_ends_is_waited_for(server: ServerProcess, tmp_path: Path) -> None:
    scenario = tmp_path / "short.toml"
    scenario.write_text((SCENARIOS / "small.toml").read_text().replace("duration_s = 20", "duration_s = 6"))
    process = begin(server, scenario, until="the server is asked")
    away_for(server, 4)
    assert end(process)["good"]


def test_an_interrupted_run_shows_what_came_until_then(server: ServerProcess) -> None:
    process = begin(server, SCENARIOS / "small.toml")
    time.sleep(5)
    process.send_signal(signal.SIGINT)
    ran = end(process, INTERRUPTED)
    assert ran["interrupted"]
    assert ran["good"]
    assert 4 < ran["lasted_s"] < 20  # the scenario's time
    assert 0 < int(held(ran, "windows")[0]) < 300


def test_a_run_that_is_interrupted_while_devices_join_shows_those_that_did(server: ServerProcess) -> None:
    process = begin(server, SCENARIOS / "small.toml", "--devices", "3000", until="1000 of 3000")
    process.send_signal(signal.SIGINT)
    ran = end(process, INTERRUPTED)
    assert ran["good"]
    assert ran["lasted_s"] == 0
    assert 1000 <= int(held(ran, "devices")[0]) < 3000


def test_what_the_server_lost_sight_of_is_named(server: ServerProcess) -> None:
    process = begin(server, SCENARIOS / "small.toml", soon_settled=True)
    status, found = server.call("GET", "/v1/devices?selector=simulation,site%3Dyard&limit=1000")
    assert status == 200
    newest = max(found["devices"], key=lambda one: one["enrolled_at"])
    change = {"labels": {"simulation": None}}
    assert server.call("PATCH", f"/v1/devices/{newest['id']}", change)[0] == 200
    process.send_signal(signal.SIGINT)
    ran = end(process, GATE_NOT_MET)
    wrong = {line["what"]: line for line in ran["lines"] if not line["is_good"]}
    assert (wrong["devices"]["should"], wrong["devices"]["holds"]) == ("50", "49")
    assert newest["name"] in wrong["states of devices"]["examples"][0]


def test_a_rollout_that_ends_otherwise_than_expected_is_named(server: ServerProcess, tmp_path: Path) -> None:
    scenario = tmp_path / "odd.toml"
    scenario.write_text(
        "devices = 5\nduration_s = 8\n[telemetry]\nwindow_s = 0\n[[groups]]\ninstall_s = [0, 0]\n"
        '[[rollouts]]\nmodel = "digits"\nexpect = "PAUSED"\n'
    )
    ran = end(begin(server, scenario, soon_settled=True), GATE_NOT_MET)
    assert [line["what"] for line in ran["lines"] if not line["is_good"]] == ["rollout of digits/2"]


def test_a_scenario_with_a_release_that_is_not_there_begins_nothing(
    server: ServerProcess, tmp_path: Path
) -> None:
    scenario = tmp_path / "absent.toml"
    scenario.write_text('[[rollouts]]\nmodel = "digits"\nrelease = 9\n')
    found = simulate(server, scenario, code=2)
    assert "has no release digits/9 to roll out" in found["error"]["message"]


def test_a_join_token_of_the_callers_lets_the_devices_in(server: ServerProcess, tmp_path: Path) -> None:
    _, made = server.call("POST", "/v1/join-tokens", {"uses": 3, "labels": {"site": "lab"}})
    scenario = tmp_path / "three.toml"
    scenario.write_text("devices = 3\nduration_s = 2\n[telemetry]\nwindow_s = 0.5\n")
    assert simulate(server, scenario, "--join-token", made["token"])["good"]
    again = simulate(server, scenario, "--join-token", made["token"], code=1)
    assert "used up" in again["error"]["message"]
