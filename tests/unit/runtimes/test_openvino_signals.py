"""Ctrl-C stays an exception whatever OpenVINO does with signal stacks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from edgeml.testing.models import make_double

PROGRAM = """
import signal, sys, threading
from pathlib import Path
from edgeml import plugins
session = plugins.runtime("openvino").load(Path(sys.argv[1]))
closing = threading.Thread(target=session.close)
closing.start()
closing.join()
del session
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    print("interrupted")
"""


def test_ctrl_c_after_a_session_was_closed_in_another_thread_is_a_keyboard_interrupt(tmp_path: Path) -> None:
    artifact = make_double(tmp_path, "openvino")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(artifact)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "interrupted\n"), done.stderr
