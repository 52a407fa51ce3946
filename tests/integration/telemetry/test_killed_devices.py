"""Device and server are both killed, again and again: each inference is stored once, in either database."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.conftest import REPOSITORY
from tests.integration.server_process import ServerProcess
from tests.integration.telemetry.senders import enrolled

WINDOW_S = 0.05


def process(token: str, *arguments: object) -> Any:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.faults.telemetry_processes", *map(str, arguments)],
        stdout=subprocess.PIPE if arguments[0] == "device" else None,
        cwd=REPOSITORY,
        env={**os.environ, "DEVICE_TOKEN": token, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )


def live(device: Any, seconds: float, end: signal.Signals) -> int:
    """Let a device that just started work for a while, and end it."""
    device.stdout.read(1)
    with pytest.raises(subprocess.TimeoutExpired):
        device.wait(seconds)
    device.send_signal(end)
    code: int = device.wait()
    device.stdout.close()
    return code


@pytest.mark.parametrize(
    ("device_kills", "server_kills"), [pytest.param(250, 60, marks=pytest.mark.soak), (8, 2)]
)
def test_each_inference_is_stored_once_though_device_and_server_are_killed(
    server: ServerProcess, tmp_path: Path, device_kills: int, server_kills: int
) -> None:
    dice = random.Random(20261126)  # noqa: S311
    token, port = enrolled(server, "hall-2"), urlsplit(server.url).port or 0
    home, rings, counted = tmp_path / "home", tmp_path / "rings", tmp_path / "counted"
    recorder = process(token, "recorder", rings, counted, 0.005)
    is_over = threading.Event()

    def kill_server() -> None:
        for _ in range(server_kills):
            if is_over.wait(dice.uniform(0.1, 1.0)):
                return
            server.kill()
            server.start(port=port)

    killer = threading.Thread(target=kill_server)
    killer.start()
    try:
        for _ in range(device_kills):
            device = process(token, "device", home, rings, server.url, WINDOW_S)
            assert live(device, dice.uniform(0.0, 0.6), signal.SIGKILL) == -signal.SIGKILL
    except BaseException:
        is_over.set()
        raise
    finally:
        recorder.terminate()
        assert recorder.wait() == 0
        killer.join()
    for seconds in (2.0, 4.0, 8.0, 16.0, 32.0):  # it waits a while where the server was away
        device = process(token, "device", home, rings, server.url, WINDOW_S)
        assert live(device, seconds, signal.SIGTERM) == 0
        if calls(server) >= int(counted.read_text()):
            break
    assert calls(server) == int(counted.read_text()) > 0
    (covered,) = server.call("GET", "/v1/telemetry/coverage")[1]["answers"]
    assert [covered[how] for how in ("missing", "evicted", "damaged", "overwritten")] == [0, 0, 0, 0]
    assert covered["epochs"] == 1
    print(f"{device_kills} + {server_kills} kills, {covered['received']} windows, {calls(server)} inferences")


def calls(server: ServerProcess) -> int:
    status, answer = server.call("GET", "/v1/telemetry/rate?model=kws")
    assert status == 200, answer
    return sum(one["calls"] for one in answer["answers"])
