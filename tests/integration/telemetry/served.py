"""A server process with telemetry in it, sent over HTTP as devices do."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from dataclasses import replace

import httpx2

from tests.integration.server.devices import enrol
from tests.integration.server_process import ServerProcess
from tests.integration.telemetry.windows import Telemetry, model_window, post

MINUTES = 5


async def tell(server: ServerProcess, devices: int = 2) -> None:
    """Have devices run releases 7 and 8 of kws, the second with errors; now and in the minutes before."""
    headers = {"Authorization": f"Bearer {server.admin_token}"}
    async with httpx2.AsyncClient(base_url=server.url, headers=headers, timeout=60) as client:
        for number in range(devices):
            device = await enrol(client, f"pi-{number}")
            telemetry = Telemetry(random.Random(number))  # noqa: S311 - made-up data
            now = time.time()
            reports = []
            for minute in reversed(range(MINUTES)):
                old = replace(model_window(telemetry.chance, 60, release=7), errors={})
                new = replace(model_window(telemetry.chance, 60, release=8), errors={"InferenceError": 6})
                reports.append(telemetry.next(now - 60 * minute - 1, models=(old, new)))
            answer = await post(client, device.token, telemetry.batch(reports, now))
            assert answer.status_code == 200, answer.text


def environment(server: ServerProcess) -> dict[str, str]:
    """What a person at a terminal has set."""
    return os.environ | {"EDGEML_SERVER": server.url, "EDGEML_TOKEN": server.admin_token}


def edgeml(server: ServerProcess, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the command; it must succeed."""
    command = [sys.executable, "-m", "edgeml", *words]
    done = subprocess.run(
        command, env=environment(server), capture_output=True, text=True, check=False, timeout=180
    )
    assert done.returncode == 0, done.stderr
    return done
