"""Processes of a device, to be killed: ``device`` keeps and sends what ``recorder`` records."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

from edgeml.telemetry.device import TelemetryPlan, run_telemetry
from edgeml.telemetry.posting import Poster
from edgeml.telemetry.recording import recorder
from edgeml.telemetry.settings import TelemetrySettings
from tests.faults.tiny_collector import TOKEN

BUDGET_BYTES = 64 * 1024


def run_device(home: Path, rings: Path, url: str, window_s: float) -> None:
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    plan = TelemetryPlan(home, rings, window_s=window_s, budget_bytes=BUDGET_BYTES, tick_s=window_s / 2)
    os.write(1, b".")
    run_telemetry(plan, Poster(url, os.environ.get("DEVICE_TOKEN", TOKEN)), stop)


def run_recorder(rings: Path, counted: Path, pause_s: float) -> None:
    """Record until told to stop; the number of inferences stands in a file."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    count = 0
    with recorder("kws", release=7, settings=TelemetrySettings(folder=str(rings))) as one:
        while not stop.is_set():
            one.record(0.001 * (1 + count % 50), label=f"class {count % 5}", confidence=0.5)
            count += 1
            time.sleep(pause_s)
    counted.write_text(str(count))


if __name__ == "__main__":
    kind, *arguments = sys.argv[1:]
    if kind == "device":
        run_device(Path(arguments[0]), Path(arguments[1]), arguments[2], float(arguments[3]))
    else:
        run_recorder(Path(arguments[0]), Path(arguments[1]), float(arguments[2]))
    os._exit(0)
