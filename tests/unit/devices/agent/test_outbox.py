"""What the server has not heard: numbered once, kept over restarts, bounded."""

from __future__ import annotations

from pathlib import Path

import pytest
from edgeml_devices.agent.outbox import EVENTS_LIMIT, HEALTH_LIMIT, Outbox
from edgeml_devices.messages import Accepted, Event, Health, Result, State


def event(state: State = State.ACCEPTED, result: Result | None = None) -> Event:
    return Event(0, 1.0, "kws", 5, 1, state, result)


def window(calls: int = 1) -> Health:
    return Health(0, 1.0, 10.0, "kws", 5, "v", 1, calls, 0)


@pytest.fixture
def outbox(tmp_path: Path) -> Outbox:
    return Outbox(tmp_path)


def test_an_entry_makes_one_event_whatever_was_killed(outbox: Outbox, tmp_path: Path) -> None:
    outbox.add_event(1, event())
    outbox.add_event(1, event())
    again = Outbox(tmp_path)
    again.add_event(1, event())
    again.add_event(2, event(State.FETCHING))
    assert [(one.seq, one.state) for one in again.waiting()[0]] == [(0, "ACCEPTED"), (1, "FETCHING")]
    assert again.epoch == outbox.epoch


def test_what_was_accepted_is_forgotten_and_no_number_comes_twice(outbox: Outbox, tmp_path: Path) -> None:
    for entry in range(1, 4):
        outbox.add_event(entry, event())
        outbox.add_health(window())
    outbox.accepted(Accepted(events=1, health=2))
    events, windows = Outbox(tmp_path).waiting()
    assert [one.seq for one in events] == [2]
    outbox.add_health(window())
    assert [one.seq for one in outbox.waiting()[1]] == [3]
    assert len(windows) <= 3  # sent again after a restart, they change nothing


def test_an_answer_about_reports_that_were_never_sent_loses_no_event(outbox: Outbox, tmp_path: Path) -> None:
    """Somebody with a copy of the token has reported as this device."""
    outbox.add_event(1, event())
    outbox.add_health(window())
    before = outbox.epoch
    outbox.accepted(Accepted(events=2**63 - 1, health=-1))
    assert len(outbox.waiting()[0]) == len(outbox.waiting()[1]) == 1
    assert outbox.epoch != before
    assert Outbox(tmp_path).epoch == outbox.epoch
    outbox.accepted(Accepted(events=0, health=0))
    assert outbox.waiting() == ((), ())


def test_reports_are_numbered_upward_over_restarts(outbox: Outbox, tmp_path: Path) -> None:
    numbers = [outbox.next_report() for _ in range(3)] + [Outbox(tmp_path).next_report()]
    assert numbers == sorted(set(numbers))


def test_results_are_never_dropped(outbox: Outbox) -> None:
    outbox.add_event(1, event(State.COMMITTED, Result.SUCCESSFUL))
    for entry in range(2, EVENTS_LIMIT + 50):
        outbox.add_event(entry, event())
    outbox.accepted(Accepted())
    kept = outbox._events.events
    assert len(kept) == EVENTS_LIMIT
    assert kept[0].result is Result.SUCCESSFUL
    assert kept[1].seq == 50


def test_the_oldest_windows_of_health_go_first(outbox: Outbox) -> None:
    for calls in range(HEALTH_LIMIT + 5):
        outbox.add_health(window(calls))
    assert outbox.waiting()[1][0].calls == 5


@pytest.mark.parametrize("name", ["events.json", "health.json"])
def test_a_lost_count_begins_a_new_epoch(outbox: Outbox, tmp_path: Path, name: str) -> None:
    outbox.add_event(1, event())
    outbox.add_health(window())
    (tmp_path / name).write_bytes(b"\0" * 10)
    assert Outbox(tmp_path).epoch != outbox.epoch


def test_a_disk_that_takes_nothing_does_not_stop_reports(tmp_path: Path) -> None:
    (tmp_path / "outbox").write_text("a file where the folder should be")
    outbox = Outbox(tmp_path / "outbox")
    outbox.add_event(1, event())
    assert len(outbox.waiting()[0]) == 1
