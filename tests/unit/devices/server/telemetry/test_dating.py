"""Windows are dated by the server's clock where the device's was wrong."""

from __future__ import annotations

from typing import Any

from edgeml_devices.server.telemetry.dating import AHEAD_S, OLDEST_S, dates
from hypothesis import given
from hypothesis import strategies as st

from edgeml.telemetry.report import Batch, Report

NOW = 1_790_000_000.0


def report(
    end_s: float, at: float, clock: Any = "unsynced", boot: str = "now", seconds: float = 60
) -> Report:
    return Report(0, "", boot, end_s - seconds, end_s, at, clock=clock)


def batch(*reports: Report, now_s: float = 1000.0) -> Batch:
    return Batch("", "now", now_s, 5.0, reports)


def test_a_synchronised_clock_is_believed() -> None:
    assert dates(batch(report(940, NOW - 77, "synced")), NOW) == [NOW - 77]


def test_one_that_was_not_set_is_replaced_by_the_time_since() -> None:
    assert dates(batch(report(880, 3.0), report(940, 63.0)), NOW) == [NOW - 120, NOW - 60]


def test_a_clock_nobody_knows_about_is_believed_if_it_says_about_the_same() -> None:
    assert dates(batch(report(940, NOW - 58.5, "unknown")), NOW) == [NOW - 58.5]
    assert dates(batch(report(940, 1e9, "unknown")), NOW) == [NOW - 60]


def test_the_future_and_1970_are_repaired_even_if_the_clock_was_said_to_be_right() -> None:
    assert dates(batch(report(940, NOW + AHEAD_S + 1, "synced")), NOW) == [NOW - 60]
    assert dates(batch(report(940, 0.0, "synced")), NOW) == [NOW - 60]


def test_windows_of_an_earlier_boot_lie_before_those_after_them() -> None:
    found = dates(
        batch(report(100, 1.0, boot="old"), report(160, 61.0, boot="old"), report(60, 1.0), now_s=60), NOW
    )
    assert found == [NOW - 120, NOW - 60, NOW]


def test_an_earlier_boot_whose_clock_is_possible_keeps_it() -> None:
    assert dates(batch(report(100, NOW - 5000, boot="old"), report(60, 1.0), now_s=60), NOW)[0] == NOW - 5000


@given(
    st.lists(
        st.builds(
            report,
            st.floats(0, 1e6),
            st.floats(-1e12, 1e12),
            st.sampled_from(["synced", "unsynced", "unknown"]),
            st.sampled_from(["now", "old", "older"]),
            st.floats(0, 1e6),
        ),
        max_size=8,
    ),
    st.floats(-1e6, 1e6),
)
def test_no_window_is_in_the_future_or_in_a_past_that_cannot_be(reports: list[Report], now_s: float) -> None:
    for at in dates(batch(*reports, now_s=now_s), NOW):
        assert NOW - OLDEST_S <= at <= NOW + AHEAD_S
