"""``edgeml telemetry top``: one table where nobody watches, redrawn on a terminal until Ctrl+C."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time

import pytest

from tests.integration.server_process import ServerProcess
from tests.integration.telemetry.served import edgeml, environment


def test_json_has_each_release_with_its_figures(served: ServerProcess) -> None:
    found = json.loads(edgeml(served, "telemetry", "top", "--once", "--json").stdout)
    rows = {row["release"]: row for row in found["rows"]}
    assert {7, 8} == set(rows)
    assert rows[8]["calls"] == 600
    assert rows[8]["error_rate"]["value"] == 0.1
    assert rows[7]["error_rate"]["value"] == 0.0
    assert rows[7]["p95_s"]["low"] <= rows[7]["p95_s"]["value"] <= rows[7]["p95_s"]["high"]
    assert rows[7]["drifted_features"] is None  # no release with a reference
    assert rows[8]["calls_per_s"] == pytest.approx(600 / (found["at"] - found["since"]), rel=0.01)
    assert found["alerts"] == []


def test_without_a_terminal_it_is_one_table(served: ServerProcess) -> None:
    lines = edgeml(served, "telemetry", "top").stdout.splitlines()
    assert "calls/s, alerts firing: 0" in lines[0]
    assert [line.split()[0] for line in lines[-2:]] == ["kws/8", "kws/7"]
    assert "10 %" in lines[-2]


def test_one_model_alone(served: ServerProcess) -> None:
    assert "no model was called" in edgeml(served, "telemetry", "top", "--model", "other").stdout


def test_on_a_terminal_it_is_redrawn_and_ctrl_c_ends_it_well(served: ServerProcess) -> None:
    terminal, its_end = pty.openpty()
    command = [sys.executable, "-m", "edgeml", "telemetry", "top", "--every", "1"]
    process = subprocess.Popen(
        command,
        stdin=its_end,
        stdout=its_end,
        stderr=its_end,
        env=environment(served) | {"TERM": "xterm"},
        start_new_session=True,
    )
    os.close(its_end)
    shown = read_until(terminal, 2)
    process.send_signal(signal.SIGINT)
    shown += drain(terminal)
    assert process.wait(60) == 0, shown
    assert "kws/8" in shown
    assert "Traceback" not in shown
    os.close(terminal)


def read_until(terminal: int, frames: int, timeout_s: float = 120.0) -> str:
    """Read what a terminal shows until a table was drawn so often."""
    shown, deadline = "", time.monotonic() + timeout_s
    while shown.count("kws/7") < frames:
        assert time.monotonic() < deadline, shown
        if select.select([terminal], [], [], 1.0)[0]:
            shown += os.read(terminal, 65536).decode(errors="replace")
    return shown


def drain(terminal: int, timeout_s: float = 60.0) -> str:
    """Read the rest, until the program has gone."""
    shown, deadline = "", time.monotonic() + timeout_s
    try:
        while time.monotonic() < deadline:
            if select.select([terminal], [], [], 1.0)[0]:
                shown += os.read(terminal, 65536).decode(errors="replace")
    except OSError:  # as Linux says that nobody holds the other end
        pass
    return shown
