"""Recorders into rings of a folder, here and in processes of their own."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

from edgeml.telemetry import Recorder, recorder
from edgeml.telemetry.reading import Drained
from edgeml.telemetry.settings import TelemetrySettings
from tests.conftest import REPOSITORY

WAIT_S = 120.0
PROGRAM = """
import os, sys, warnings
warnings.simplefilter("always")
from edgeml.telemetry import recorder
from edgeml.telemetry.settings import TelemetrySettings
own = TelemetrySettings(folder=sys.argv[1], slots=1024)
"""


def begin(folder: Path, slots: int = 1024, **changes: Any) -> Recorder:
    own = TelemetrySettings(folder=str(folder), slots=slots)
    return recorder("m", release=3, variant="v", runtime="r", settings=own, **changes)


def calls(drained: Drained) -> int:
    return sum(window.calls for window in drained.models)


def python(folder: Path, program: str, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *options, "-c", PROGRAM + textwrap.dedent(program), str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
    )
