"""A command that a machine kills takes along what it started."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from edgeml_devices.transports.posix_shell import KEEP

from tests.conftest import require
from tests.waiting import gone, pid_in

SLOW = """kill() { shift; for one; do command kill -9 "$one"; [ "$one" != "$session" ] || sleep 1; done; }
"""
"""Whoever kills is not on a processor for a while, once the process that leads the session is dead."""


@pytest.mark.parametrize("shell", [("dash",), ("busybox", "sh")], ids=lambda shell: shell[0])
def test_children_end_though_who_kills_is_slower_than_who_waits(
    shell: tuple[str, ...], tmp_path: Path
) -> None:
    require(shutil.which(shell[0]), f"{shell[0]} is not installed")
    child, job = tmp_path / "child", tmp_path / "job"
    job.mkdir()
    command = f"sleep 600 & echo $! >{shlex.quote(str(child))}; wait"
    keep = f"guarded=1; keep {shlex.quote(str(job))} 600 sh -c {shlex.quote(command)}"
    connection, other_end = os.pipe()
    with subprocess.Popen([*shell, "-c", f"exec 3<&0\n{SLOW}{KEEP}\n{keep}"], stdin=connection) as keeper:
        os.close(connection)
        pid = pid_in(child)
        os.close(other_end)
        keeper.wait(timeout=30)
    assert gone(pid)
    assert (job / "code").read_text() == "late\n"
