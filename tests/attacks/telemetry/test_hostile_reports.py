"""Whatever one device reports, operators see every page and other devices' reports are taken."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import time
from typing import Any

import pytest

from tests.attacks.telemetry.hostile import Attacker, Operator, histogram, window
from tests.integration.server_process import ServerProcess

MOST = 2**53 - 1
NAME = "<script>alert(1)</script>\n\x1b[31m\u202e\"'\\{{7*7}}"

UNTRUE: dict[str, dict[str, Any]] = {
    "buckets so far apart that their sum fills the memory": {
        "latency": {"total": histogram(offset=2**39, scale=20)}
    },
    "buckets below all that is measured": {"latency": {"total": histogram(offset=-(2**30))}},
    "a scale that no shift can be made of": {"latency": {"total": histogram(scale=-1)}},
    "a scale coarser than the fleet's": {"confidence": histogram(scale=2)},
    "a stage of seconds beyond all times": {"latency": {"run": histogram(max=1.7e308)}},
    "more errors than calls": {"errors": {"x": 100}, "calls": 1, "latency": {}},
    "errors without calls": {"errors": {"x": MOST}, "calls": 0, "latency": {}},
    "more latencies than calls": {"calls": 9},
    "more confidences than calls": {"calls": 9, "latency": {}, "confidence": histogram()},
}
TAKEN: dict[str, dict[str, Any]] = {
    "counts that add up beyond 64 bits": {"calls": MOST, "errors": {"x": MOST}, "latency": {}},
    "sums that add up beyond 64 bits": {"latency": {"total": histogram(sum_nano=2**63 - 1)}},
    "names and examples that mean harm": {
        "variant": "\n# HELP x y\nfoo 1",
        "runtime": "\r\n",
        "classes": {"\n": 1, NAME: MOST},
        "errors": {NAME: 1},
        "features": {NAME: [MOST] * 33},
        "rff_sum": [1e300] * 64,
        "rff_count": MOST,
        "samples": [
            {
                "at": 1e300,
                "why": "error",
                "label": NAME,
                "error": f"\0{NAME}",
                "raw": b"\0\xff" * 100,
                "features": [1e300, -1e300],
                "latency_s": -1e300,
                "confidence": 1e300,
            }
        ],
    },
}
SYSTEM = {
    "temperature_celsius": {"min": -1e300, "mean": 1e300, "max": 1e300, "count": MOST},
    NAME: {"min": 0, "mean": 0, "max": 0},
}


def test_what_cannot_be_true_is_refused_and_the_field_named(server: ServerProcess) -> None:
    attacker = Attacker(server, "attacker")
    for case, fields in UNTRUE.items():
        status, said = attacker.send(attacker.report(window(**fields)))
        assert status == 400, case
        assert "models[0]" in said["error"]["message"], case
        attacker.start_again()
    assert Operator(server).failures("attacker") == []


@pytest.mark.parametrize("case", TAKEN)
def test_extremes_are_taken_and_every_page_answers(server: ServerProcess, case: str) -> None:
    attacker = Attacker(server, "attacker")
    told = {"system": SYSTEM, "energy_joules": 1e300}
    many = 1 if "samples" in TAKEN[case] else 60
    reports = [attacker.report(*[window(**TAKEN[case])] * many, **told) for _ in range(20)]
    assert attacker.send(*reports)[0] == 200
    assert attacker.send(attacker.report(window(model=NAME, **TAKEN[case]), **told))[0] == 200
    # hours are added up every two seconds
    time.sleep(3)
    operator = Operator(server)
    assert operator.failures("attacker") == []
    for path in ("/console/telemetry", "/console/devices/attacker"):
        assert "<script>alert" not in operator.page(path)[1]
    assert not [line for line in server.output if "Error" in line]
    neighbour = Attacker(server, "neighbour")
    assert neighbour.send(neighbour.report(window()))[0] == 200


def test_prometheus_reads_names_that_mean_harm(server: ServerProcess) -> None:
    attacker = Attacker(server, "attacker")
    assert attacker.send(attacker.report(window(model=NAME, **TAKEN["names and examples that mean harm"])))
    _, text = server.call("GET", "/metrics")
    assert "\nfoo 1" not in text.decode()
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed")
    done = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, check=False)
    assert done.returncode in {0, 3}, done.stderr  # 3: it would name something otherwise


def test_days_whose_sums_leave_64_bits_are_shown(server: ServerProcess) -> None:
    """A device that says a window was a year long, 300,000 times: as its day file is then."""
    attacker = Attacker(server, "attacker")
    assert attacker.send(attacker.report(window()), attacker.report(window()))[0] == 200
    files = sorted((server.data / "telemetry").glob("2*.db"))
    if not files:
        pytest.skip("sums are not bounded in PostgreSQL")
    with sqlite3.connect(files[-1]) as day:
        day.execute("UPDATE report SET duration = ?, overwritten = ?", (2**62, 2**62))
    day.close()
    assert Operator(server).failures("attacker") == []


def test_a_device_that_names_ever_more_models_is_stopped_before_pages_are(server: ServerProcess) -> None:
    attacker = Attacker(server, "attacker")
    statuses = []
    for number in range(12):
        windows = [window(model=f"m{number}-{one}", variant=str(one)) for one in range(64)]
        status, _ = attacker.send(attacker.report(*windows))
        statuses.append(status)
        if status != 200:
            attacker.start_again()
    assert statuses == [200] * 7 + [400] * 5
    neighbour = Attacker(server, "neighbour")
    assert neighbour.send(neighbour.report(window()))[0] == 200
    assert Operator(server).failures("attacker", "m1-1") == []
