"""Machines with a process in QEMU's place."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from edgeml_devices.emulator.machine import state
from edgeml_devices.emulator.machine.addresses import Addresses
from edgeml_devices.emulator.machine.state import Record

BOARD = "raspberry-pi-4"
RECORD = Record(BOARD, "a1", 1 << 30, Addresses(1, 2, 3, 4), detached=False, started_s=1.0, restored=False)
SLEEP = (sys.executable, "-c", "import time; time.sleep(300)")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("EDGEML_CACHE_DIR", str(tmp_path))
    yield tmp_path
    for folder in (tmp_path / "emulator/machines").glob("*"):
        state.kill(folder)


@pytest.fixture
def machine(cache: Path) -> Iterator[Path]:
    """Give the folder of a machine that runs."""
    folder, owner = state.new_folder(BOARD)
    process = run(folder)
    with owner:
        yield folder
    state.kill(folder)
    process.wait()


def run(folder: Path, record: Record = RECORD, said_after_s: float = 0.0) -> subprocess.Popen[bytes]:
    """Start a process that holds a machine's lock, as QEMU does; its record is written some time later."""
    with state.run_lock(folder) as lock:
        process = subprocess.Popen(
            SLEEP,
            pass_fds=[lock.fileno()],
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        lock.write(str(process.pid).encode())
    time.sleep(said_after_s)
    state.write_record(folder, record)
    return process
