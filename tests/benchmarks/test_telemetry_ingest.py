"""How much telemetry one server takes, the generator beside it, each answer after a durable commit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.integration.server_process import ServerProcess

CPU_PER_REPORT_S = 80e-6
BYTES_PER_REPORT = 700
GENERATOR = Path(__file__).with_name("telemetry_generator.py")


@pytest.mark.parametrize(
    ("batch", "reports", "goal_per_s"), [(1, 30_000, 8_000), (50, 100_000, 15_000)], ids=["single", "batches"]
)
def test_reports_are_taken_as_quickly_as_they_must_be(
    tmp_path: Path, batch: int, reports: int, goal_per_s: int
) -> None:
    data = tmp_path / "server"
    with ServerProcess(data) as server:
        found, cpu_s = ingest(server, batch, reports)
    stored = sum(file.stat().st_size for file in (data / "telemetry").iterdir() if file.name[0] == "2")
    rate, bytes_each = found["reports"] / found["seconds"], stored / found["reports"]
    print(
        f"\nbatches of {batch}: {rate:.0f} reports/s, {cpu_s / found['reports'] * 1e6:.0f} µs CPU each, "
        f"{bytes_each:.0f} bytes each on disk ({found['request_bytes']:.0f} sent), "
        f"p50 {found['p50_s'] * 1e3:.0f} ms, p99 {found['p99_s'] * 1e3:.0f} ms"
    )
    assert bytes_each <= BYTES_PER_REPORT
    assert rate >= goal_per_s
    if batch > 1:
        assert cpu_s / found["reports"] <= CPU_PER_REPORT_S


def ingest(
    server: ServerProcess, batch: int, reports: int, devices: int = 100
) -> tuple[dict[str, Any], float]:
    """Send reports; give what the generator measured, and the server's CPU seconds meanwhile."""
    status, join = server.call("POST", "/v1/join-tokens", {"uses": devices})
    assert status == 201, join
    command = [sys.executable, str(GENERATOR), "--server", server.url, "--join-token", join["token"]]
    command += ["--devices", str(devices), "--batch", str(batch), "--reports", str(reports)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as generator:
        assert generator.stdin is not None
        assert generator.stdout is not None
        assert generator.stdout.readline() == "ready\n"
        before = cpu_seconds(server.pid)
        generator.stdin.write("\n")
        generator.stdin.flush()
        line = generator.stdout.readline()
        after = cpu_seconds(server.pid)
        assert line, "the generator ended"
    return json.loads(line), after - before


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
