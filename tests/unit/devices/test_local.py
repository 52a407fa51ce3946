"""What `local:` does beyond the contract of transports."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgeml import plugins
from edgeml.errors import TransportError


def test_a_job_with_a_process_group_of_its_own_is_killed_too(tmp_path: Path) -> None:
    script = f"set -m; sleep 300 & echo $! > {tmp_path}/pid; wait"
    with plugins.transport("local:") as transport, pytest.raises(TransportError, match="killed"):
        transport.run(["bash", "-c", script], 1.0)
    _wait_until_gone(int((tmp_path / "pid").read_text()))


def test_sigterm_of_the_program_kills_what_it_runs(tmp_path: Path) -> None:
    script = f"echo $$ > {tmp_path}/new; mv {tmp_path}/new {tmp_path}/pid; sleep 300"
    program = (
        "import signal, sys\n"
        "from edgeml import plugins\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))\n"
        "with plugins.transport('local:') as transport: transport.run(['sh', '-c', sys.argv[1]], 60)\n"
    )
    running = subprocess.Popen([sys.executable, "-c", program, script])
    deadline = time.monotonic() + 10
    while not (tmp_path / "pid").exists():
        assert time.monotonic() < deadline, "the command did not start"
        time.sleep(0.02)
    running.send_signal(signal.SIGTERM)
    assert running.wait(10) == 143
    _wait_until_gone(int((tmp_path / "pid").read_text()))


def test_a_result_comes_as_soon_as_the_command_ends() -> None:
    with plugins.transport("local:") as transport:
        begun = time.monotonic()
        for _ in range(20):
            transport.run(["true"], 20)
        assert time.monotonic() - begun < 2.0


def _wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + 10
    while True:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            return
        assert time.monotonic() < deadline, "the process is still there"
        time.sleep(0.02)
