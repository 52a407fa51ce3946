"""10,000 simulated devices with telemetry, faults and a rollout: memory of the simulator, and its check."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

from tests.benchmarks.test_fleet_scale import edgeml, resident_bytes
from tests.conftest import REPOSITORY, require
from tests.integration.server_process import ServerProcess
from tests.unit.core.release_folders import digits

SCENARIO = REPOSITORY / "examples" / "simulate" / "ten-thousand.toml"
DEVICES = 10_000
MEMORY_BYTES = 1e9
LONGEST_S = 1500


def test_ten_thousand_simulated_devices_fit_into_1_gb_and_the_server_holds_what_they_said(
    tmp_path: Path,
) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    require(hard > DEVICES + 1000, f"{DEVICES} connections need as many open files; ulimit -Hn is {hard}")
    with ServerProcess(tmp_path / "server") as server:
        edgeml(server, tmp_path, "repo", "init")
        edgeml(server, tmp_path, "publish", str(digits(tmp_path / "1")))
        environment = os.environ | {"EDGEML_SERVER": server.url, "EDGEML_TOKEN": server.admin_token}
        argv = [sys.executable, "-m", "edgeml", "simulate", str(SCENARIO), "--json"]
        done = subprocess.run(
            argv, check=False, stdout=subprocess.PIPE, text=True, env=environment, timeout=LONGEST_S
        )
        server_bytes = resident_bytes(server.pid)
    ran = json.loads(done.stdout)
    print(
        f"\n{DEVICES} devices joined in {ran['joining_s']:.0f} s; the simulator had "
        f"{ran['peak_memory_bytes'] / 1e6:.0f} MB at most, the server has {server_bytes / 1e6:.0f} MB"
    )
    for line in ran["lines"]:
        print(f"{line['what']}: foreseen {line['foreseen']}, said {line['should']}, held {line['holds']}")
    print({name: one for name, one in ran.items() if name not in {"lines", "schema"}})
    assert done.returncode == 0
    assert ran["peak_memory_bytes"] <= MEMORY_BYTES
