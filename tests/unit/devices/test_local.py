"""What `local:` does beyond the contract of transports."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgeml import plugins
from edgeml.errors import TransportError
from tests.waiting import eventually, gone


def test_a_job_with_a_process_group_of_its_own_is_killed_too(tmp_path: Path) -> None:
    script = f"set -m; sleep 300 & echo $! > {tmp_path}/pid; wait"
    with plugins.transport("local:") as transport, pytest.raises(TransportError, match="killed"):
        transport.run(["bash", "-c", script], 3.0)
    assert gone(int((tmp_path / "pid").read_text()))


def test_sigterm_of_the_program_kills_what_it_runs(tmp_path: Path) -> None:
    script = f"echo $$ > {tmp_path}/new; mv {tmp_path}/new {tmp_path}/pid; sleep 300"
    program = (
        "import signal, sys\n"
        "from edgeml import plugins\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))\n"
        "with plugins.transport('local:') as transport: transport.run(['sh', '-c', sys.argv[1]], 60)\n"
    )
    running = subprocess.Popen([sys.executable, "-c", program, script])
    eventually((tmp_path / "pid").exists, "the command starts")
    running.send_signal(signal.SIGTERM)
    assert running.wait(60) == 143
    assert gone(int((tmp_path / "pid").read_text()))


def test_a_result_comes_as_soon_as_the_command_ends() -> None:
    with plugins.transport("local:") as transport:
        times_s = []
        for _ in range(20):
            begun = time.monotonic()
            transport.run(["true"], 20)
            times_s.append(time.monotonic() - begun)
    assert min(times_s) < 0.05  # other work on the machine only ever adds
