"""What it costs a device to judge itself."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from edgeml.reference_data import feature_reference, joint_reference
from edgeml.telemetry.judging import Judging
from edgeml.telemetry.reference import Reference, with_digest
from edgeml.telemetry.report import ModelWindow, Report

pytestmark = pytest.mark.bench
RESIDENT = "int(open('/proc/self/statm').read().split()[1]) * 4096"


def reference(features: int) -> Reference:
    rows = np.random.default_rng(0).normal(size=(20_000, features))
    made = [feature_reference(f"x[{place}]", rows[:, place]) for place in range(features)]
    known = tuple(one for one in made if one is not None)
    classes = {str(number): 1000 for number in range(20)}
    return with_digest(Reference(20_000, known, classes, joint=joint_reference(known, rows)))


def report(known: Reference, minute: int, random: np.random.Generator) -> Report:
    rows = random.normal(size=(1800, len(known.features)))
    assert known.joint is not None
    window = ModelWindow(
        "kws",
        1,
        calls=1800,
        classes=dict.fromkeys(map(str, range(20)), 90),
        features={one.name: one.count(rows[:, place]) for place, one in enumerate(known.features)},
        rff_sum=tuple(256 * one for one in known.joint.mean),
        rff_count=256,
        reference=known.digest,
    )
    return Report(0, "", "boot", 60.0 * minute, 60.0 * minute + 60, 1.8e9, models=(window,))


@pytest.mark.parametrize(("features", "limit_ms"), [(8, 10), (30, 30)])
def test_a_judgement_every_five_minutes_takes_milliseconds(
    tmp_path: Path, features: int, limit_ms: float
) -> None:
    known, random = reference(features), np.random.default_rng(1)
    judging = Judging(tmp_path, lambda _model, _release: known)
    costs_s: list[float] = []
    for minute in range(150):
        one = report(known, minute, random)
        began = time.process_time()
        judging.add(one)
        costs_s.append(time.process_time() - began)
    judged_ms = statistics.median(costs_s[64::5]) * 1e3
    added_us = statistics.median(cost for place, cost in enumerate(costs_s) if place % 5 != 4) * 1e6
    print(f"\n{features} features: {judged_ms:.1f} ms a judgement, {added_us:.0f} µs to add a window up")
    assert judged_ms <= limit_ms


def test_the_modules_take_less_than_a_megabyte_over_those_that_keep_telemetry() -> None:
    code = (
        "import edgeml.atomic, edgeml.installed, edgeml.telemetry.reading, edgeml.telemetry.spool\n"
        f"before = {RESIDENT}\nimport edgeml.telemetry.judging\nprint({RESIDENT} - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    print(f"\n{int(done.stdout) / 1024:.0f} KiB")
    assert int(done.stdout) <= 1_000_000
