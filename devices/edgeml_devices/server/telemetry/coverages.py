"""What came of each device on each day: adds up what databases counted. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import NamedTuple

from edgeml_devices.server.telemetry.selecting import DAY_US
from edgeml_devices.server.telemetry.store import Coverage
from edgeml_devices.server.telemetry.streams import Gap


def covered_share(row: Coverage) -> float:
    """Give the share of what was asked about of a day that windows cover."""
    return min(1.0, row.seconds / row.asked_s)


class Sums(NamedTuple):
    """Of the reports of one device whose windows ended on one day, or of a part of them."""

    device: str
    day: int
    """Since 1970."""
    windows: int
    merged: int
    evicted: int
    damaged: int
    overwritten: int
    lost_inside: int
    """Numbers that merged windows cover, and of which nothing is in them."""
    duration_us: int
    """After the moment since which was asked."""
    boots: frozenset[str]
    epochs: frozenset[str]


def coverage(
    sums: Iterable[Sums], gaps: Iterable[tuple[str, Gap]], since_us: int, until_us: int
) -> list[Coverage]:
    """Add up, by device and day. A gap counts on the day on which the window after it ended.

    Args:
        sums: of windows that ended after ``since_us`` and not after ``until_us``.
        gaps: of all time, by device.
        since_us: from when on there was anything to count.
        until_us: until when.
    """
    days: dict[tuple[str, int], list[Sums]] = {}
    for one in sums:
        days.setdefault((one.device, one.day), []).append(one)
    missing: dict[tuple[str, int], list[tuple[int, int]]] = {}
    for device, gap in gaps:
        if since_us < gap.at_us <= until_us:
            key = (device, (gap.at_us - 1) // DAY_US)
            missing.setdefault(key, []).append((gap.first, gap.last))
    return [
        _day(
            device,
            day,
            days[device, day],
            sorted(missing.get((device, day), [])),
            min(until_us, (day + 1) * DAY_US) - max(since_us, day * DAY_US),
        )
        for device, day in sorted(days)
    ]


def _day(device: str, day: int, parts: list[Sums], gaps: list[tuple[int, int]], asked_us: int) -> Coverage:
    evicted, damaged = sum(one.evicted for one in parts), sum(one.damaged for one in parts)
    absent = sum(one.lost_inside for one in parts) + sum(last - first + 1 for first, last in gaps)
    return Coverage(
        device,
        datetime.fromtimestamp(day * 86400, UTC).strftime("%Y-%m-%d"),
        sum(one.windows for one in parts),
        sum(one.merged for one in parts),
        evicted,
        damaged,
        sum(one.overwritten for one in parts),
        max(0, absent - evicted - damaged),
        sum(one.duration_us for one in parts) / 1e6,
        asked_us / 1e6,
        len(frozenset().union(*(one.boots for one in parts))),
        len(frozenset().union(*(one.epochs for one in parts))),
        tuple(gaps),
    )
