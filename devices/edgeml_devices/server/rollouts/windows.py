"""Maintenance windows: whether devices may switch now. The server's clock decides, not the device's."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

from edgeml_devices.server.rollouts.policy import DAYS, Policy, Window

_LONGEST_DAYS = 8
"""A window lasts a week at most; one that began longer ago is over."""


def is_open(policy: Policy, now: float) -> bool:
    """Say whether devices may switch; always, where no window is declared."""
    return not policy.windows or any(
        begin <= now < end for window in policy.windows for begin, end in _spans(window, policy.timezone, now)
    )


def next_change(policy: Policy, now: float) -> float | None:
    """Give when that changes next, in Unix seconds; ``None``: never."""
    edges = {
        edge
        for window in policy.windows
        for span in _spans(window, policy.timezone, now)
        for edge in span
        if edge > now
    }
    is_now = is_open(policy, now)
    return next((edge for edge in sorted(edges) if is_open(policy, edge) != is_now), None)


def _spans(window: Window, timezone: str, now: float) -> list[tuple[float, float]]:
    """Give the window's openings around ``now``.

    It begins by the local clock and lasts by seconds: on the night that the clock is put forward, a start
    that does not exist is an hour later.
    """
    zone = ZoneInfo(timezone)
    today = datetime.fromtimestamp(now, zone).date()
    hour, minute = map(int, window.start.split(":"))
    found = []
    for ahead in range(-_LONGEST_DAYS, _LONGEST_DAYS + 1):
        day = today + timedelta(days=ahead)
        if DAYS[day.weekday()] in window.days:
            begin = datetime.combine(day, time(hour, minute), zone).astimezone(UTC).timestamp()
            found.append((begin, begin + window.duration_s))
    return found
