"""What a day of telemetry costs a device's flash and processor."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from edgeml.telemetry.clock import boot_clock
from edgeml.telemetry.machine import Meter
from edgeml.telemetry.power import PowerMeter
from edgeml.telemetry.segments import Note, pack
from edgeml.telemetry.spool import open_spool
from tests.unit.core.telemetry.reports import busy_window, dated

pytestmark = pytest.mark.bench
BUDGET_BYTES_PER_DAY = 10_000_000


def written_bytes() -> int:
    return int(Path("/proc/self/io").read_text().partition("\nwrite_bytes: ")[2].split()[0])


@pytest.mark.parametrize("is_online", [True, False], ids=["online", "offline"])
def test_a_day_writes_less_than_ten_megabytes(tmp_path: Path, is_online: bool) -> None:
    dice = random.Random(1)  # noqa: S311
    several = [busy_window(dice) for _ in range(40)]
    spool = open_spool(tmp_path)
    assert spool is not None
    before, began = written_bytes(), time.process_time()
    with spool:
        for number in range(720):  # half a day
            spool.append(dated(several[number % 40], number), {"ring": number})
            if is_online:
                spool.acknowledge(spool.batch()[-1].seq)
    written, seconds = 2 * (written_bytes() - before), time.process_time() - began
    size = sum(len(pack(one, Note())) for one in several) / len(several)
    print(f"\n{written / 1e6:.1f} MB a day, {size:.0f} bytes and {seconds / 720 * 1e6:.0f} µs a window")
    if before == 0 and written == 0:
        pytest.skip("this file system's writes are not counted")
    assert written <= BUDGET_BYTES_PER_DAY


def test_reading_the_machine_costs_next_to_nothing() -> None:
    meter, power = Meter(), PowerMeter()
    began, wall = time.process_time(), boot_clock()
    for _ in range(100):
        meter.sample()
        power.sample()
    seconds = (time.process_time() - began) / 100
    print(f"\n{seconds * 1e6:.0f} µs a reading, {(boot_clock() - wall) * 10:.2f} ms on the wall")
    assert seconds / 10 <= 0.001  # of one processor, at a reading each 10 s
