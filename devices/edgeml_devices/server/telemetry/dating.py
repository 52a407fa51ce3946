"""When windows ended by the server's clock, whatever the device's clock said. Pure.

A window of the boot that sends it lies ``now_s - end_s`` in the past, by a clock that nobody sets. One of an
earlier boot lies between its neighbours. A device's wall clock is believed where it was synchronised, or
says about the same.
"""

from __future__ import annotations

from typing import Final

from edgeml.telemetry.report import Batch, Report

AHEAD_S: Final = 300.0
"""No window ends later than so long after it was received."""
OLDEST_S: Final = 366 * 86400.0
"""… nor so long before: a clock that says so was wrong."""


def dates(batch: Batch, received_at: float) -> list[float]:
    """Give the end of each window of a batch, Unix seconds of the server's clock.

    Args:
        batch: in the order of their numbers.
        received_at: Unix seconds.
    """
    found: list[float] = []
    # the latest that the next window to the left may end
    latest = received_at
    later: Report | None = None
    for report in reversed(batch.reports):
        if later is not None:
            latest = min(latest, found[-1] - (later.end_s - later.start_s))
        found.append(_date(report, batch, received_at, latest))
        later = report
    found.reverse()
    return found


def _date(report: Report, batch: Batch, received_at: float, latest: float) -> float:
    oldest, newest = received_at - OLDEST_S, received_at + AHEAD_S
    plausible = oldest <= report.at <= newest
    if report.clock == "synced" and plausible:
        return report.at
    if report.boot_id == batch.boot_id:
        at = received_at - max(0.0, batch.now_s - report.end_s)
        believed = report.clock == "unknown" and abs(report.at - at) <= AHEAD_S
        return max(oldest, report.at if believed else at)
    booted = received_at - max(0.0, batch.now_s)
    latest = max(oldest, min(latest, booted))
    return report.at if oldest <= report.at <= latest else latest
