"""A rehearsal's `edgeml deploy` ends with the command that started it."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.waiting import gone, pid_in

REHEARSES = """
import signal, sys
from pathlib import Path
from edgeml_devices.operator.rehearsal import rehearse
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # as the command line does
sys.executable = sys.argv[1]
rehearse(Path("kws-1.edgeml"), ["raspberry-pi-4"], "user")
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_deployed_any_more_once_the_rehearsal_was_ended(
    number: signal.Signals, tmp_path: Path
) -> None:
    deploy = tmp_path / "deploy"
    deploy.write_text(f"#!/bin/sh\necho $$ >{tmp_path}/pid\nexec sleep 300\n")
    deploy.chmod(0o755)
    with subprocess.Popen([sys.executable, "-c", REHEARSES, str(deploy)]) as rehearsal:
        deploying = pid_in(tmp_path / "pid")
        rehearsal.send_signal(number)
        rehearsal.wait(60)
    assert gone(deploying)
