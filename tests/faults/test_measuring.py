"""Measurements whose caller is killed in the middle."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.conftest import REPOSITORY
from tests.waiting import eventually, gone

PARENT = """
import sys
from pathlib import Path
from edgeml_converters.evaluate.latency import Job, benched
benched([Job("digits", "onnxruntime", Path(sys.argv[1]), {})], print, ["--seconds", "300"])
"""


def test_nothing_measures_on_for_a_conversion_that_was_killed() -> None:
    model = REPOSITORY / "examples/digits/digits.onnx"
    parent = subprocess.Popen([sys.executable, "-c", PARENT, model], stdout=subprocess.DEVNULL)
    try:
        (command,) = eventually(lambda: started_by(parent.pid), "edgeml bench runs")
        (measured,) = eventually(lambda: started_by(command), "a process that is measured")
    finally:
        parent.kill()
        parent.wait()
    assert gone(command)
    assert gone(measured)


def started_by(parent: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]
