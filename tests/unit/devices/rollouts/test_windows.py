"""Maintenance windows by the local clock, through the nights on which that clock jumps."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from edgeml_devices.server.rollouts.policy import Policy, Window
from edgeml_devices.server.rollouts.windows import is_open, next_change

BERLIN = ZoneInfo("Europe/Berlin")


def policy(*windows: Window, timezone: str = "Europe/Berlin") -> Policy:
    return Policy("kws", 2, selector="", windows=windows, timezone=timezone)


def local(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN).timestamp()


def utc(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def test_without_a_window_it_is_always_open() -> None:
    assert is_open(policy(), 0.0)
    assert next_change(policy(), 0.0) is None


NIGHT = policy(Window("22:00", 4 * 3600, ("mon",)))


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        ("2026-03-02 21:59", False),
        ("2026-03-02 22:00", True),
        ("2026-03-03 01:59", True),
        ("2026-03-03 02:00", False),
        ("2026-03-03 22:30", False),
    ],
)
def test_a_window_begins_on_its_days_and_may_end_on_the_next(at: str, expected: bool) -> None:
    assert is_open(NIGHT, local(at)) is expected


def test_the_next_change_is_where_it_opens_or_closes() -> None:
    assert next_change(NIGHT, local("2026-03-02 12:00")) == local("2026-03-02 22:00")
    assert next_change(NIGHT, local("2026-03-02 22:00")) == local("2026-03-03 02:00")
    both = policy(Window("22:00", 3600), Window("22:30", 3600))
    assert next_change(both, local("2026-03-02 22:10")) == local("2026-03-02 23:30"), "one opening, not two"


def test_it_lasts_as_long_as_it_says_when_the_clock_is_put_back() -> None:
    night = policy(Window("01:00", 3 * 3600))
    begin = local("2026-10-25 01:00")
    assert is_open(night, begin + 3 * 3600 - 1)
    assert not is_open(night, begin + 3 * 3600), "by the clock on the wall that is 03:00, not 04:00"


def test_a_start_that_the_clock_jumps_over_is_an_hour_later() -> None:
    night = policy(Window("02:30", 3600))
    assert next_change(night, local("2026-03-29 01:00")) == utc("2026-03-29 01:30")


def test_windows_that_meet_never_close() -> None:
    always = policy(Window("00:00", 86_400 + 60))
    assert is_open(always, local("2026-03-02 00:00"))
    assert next_change(always, local("2026-03-02 12:00")) is None
