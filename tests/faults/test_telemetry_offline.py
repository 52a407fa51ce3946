"""Days without a server: the spool stays within its budget, and no count is lost."""

from __future__ import annotations

import random
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from edgeml.telemetry.encoding import report_from_json
from edgeml.telemetry.report import Report
from edgeml.telemetry.spool import open_spool
from tests.unit.core.telemetry.reports import busy_window, dated


def totals(found: Counter[object], report: Report) -> None:
    """Add up what merging must keep."""
    found["windows"] += report.windows
    found["evicted"] += report.lost.evicted
    found["readings"] += report.system["cpu_utilization"].count
    for one in report.models:
        found["calls"] += one.calls
        for name, count in one.classes.items():
            found["class", name] += count
        for name, counts in one.features.items():
            found.update({(name, place): count for place, count in enumerate(counts)})
        for stage, histogram in one.latency.items():
            found[stage, "sum"] += histogram.sum_nano
            found.update({(stage, place): n for place, n in enumerate(histogram.counts, histogram.offset)})


@pytest.mark.parametrize(
    ("days", "budget_bytes"), [pytest.param(30, 2_000_000, marks=pytest.mark.soak), (1.5, 200_000)]
)
def test_days_offline_fit_the_budget_and_keep_every_count(
    tmp_path: Path, days: float, budget_bytes: int
) -> None:
    dice = random.Random(20261126)  # noqa: S311
    several = [busy_window(dice) for _ in range(40)]
    wanted: Counter[object] = Counter()
    count = int(days * 1440)
    spool = open_spool(tmp_path, budget_bytes=budget_bytes, durability="relaxed")
    assert spool is not None
    most_bytes = 0
    with spool:
        for number in range(count):
            made = dated(several[number % len(several)], number)
            totals(wanted, made)
            spool.append(made, {"ring": number})
            if number % 100 == 0:
                on_disk = sum(path.stat().st_size for path in tmp_path.iterdir())
                most_bytes = max(most_bytes, on_disk)
        found: Counter[object] = Counter()
        reports = [report_from_json(one.text) for one in spool._next(10**9, 10**9)]
    for one in reports:
        totals(found, one)
    assert +found == +wanted
    assert found["windows"] == count
    assert most_bytes <= budget_bytes * 1.05
    assert all(other.prev == one.link and other.begins == one.seq + 1 for one, other in pairwise(reports))
    print(f"{days:g} days: {len(reports)} reports, {most_bytes:,} bytes")
