"""Processes are waited for without delay, and end with all that they started."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

from edgeml.processes import ended_within, kill_session
from tests.waiting import gone, is_running, pid_in


def started(script: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(["bash", "-c", script], start_new_session=True)


def test_a_process_that_ends_is_reaped_with_its_exit_code() -> None:
    process = started("exit 7")
    assert ended_within(process, 60)
    assert process.returncode == 7
    assert ended_within(process, 0)


def test_a_process_that_goes_on_is_told_after_the_time_limit() -> None:
    process = started("sleep 300")
    begun = time.monotonic()
    assert not ended_within(process, 0.2)
    assert 0.2 <= time.monotonic() - begun < 60
    kill_session(process)


def test_children_in_process_groups_of_their_own_are_killed(tmp_path: Path) -> None:
    process = started(f"set -m; sleep 300 & echo $! > {tmp_path}/pid; wait")
    child = pid_in(tmp_path / "pid")
    assert os.getpgid(child) != process.pid
    kill_session(process)
    assert process.returncode == -9
    assert gone(child)


def test_what_a_process_left_behind_is_killed_after_its_end(tmp_path: Path) -> None:
    process = started(f"sleep 300 & echo $! > {tmp_path}/pid")
    assert ended_within(process, 60)
    child = pid_in(tmp_path / "pid")
    assert is_running(child)
    kill_session(process)
    assert gone(child)
