"""What is worked on, and what is not tried again."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import pytest
from edgeml_devices.agent.deployment import Wish
from edgeml_devices.agent.fetch import LONGEST_WAIT_S, backoff_s
from edgeml_devices.agent.origins import Origin
from edgeml_devices.agent.record import StateRecord, new_record
from edgeml_devices.agent.service import next_attempt
from edgeml_devices.agent.states import is_due
from edgeml_devices.messages import Assignment, Result, State


class Server:
    offline = False


class Carried:
    offline = True


NEW = new_record("kws")
DONE = replace(NEW, target=5, attempt=1, result=Result.SUCCESSFUL)
FAILED = replace(NEW, target=5, attempt=1, result=Result.FAILED_NO_STATE_CHANGE, failed={"5": 1})
REMOVED = replace(NEW, target=None, attempt=1, result=Result.SUCCESSFUL)


def wish(release: int | None, attempt: int = 1, origin: object = Server) -> Wish:
    return Wish(Assignment(release, attempt), cast("Origin", origin))


@pytest.mark.parametrize(
    ("record", "wanted", "running", "due"),
    [
        (NEW, wish(5), None, True),
        (NEW, wish(5), 5, True),  # to be verified and told, not to be fetched
        (DONE, wish(5), 5, False),
        (DONE, wish(5), 4, True),  # something else runs by now
        (DONE, wish(5, 2), 5, True),
        (DONE, wish(4), 5, True),
        (FAILED, wish(5), 4, False),
        (FAILED, wish(5, 2), 4, True),
        (FAILED, wish(6), 4, True),
        (NEW, wish(None), None, False),
        (NEW, wish(None), 5, True),
        (FAILED, wish(None), None, True),
        (REMOVED, wish(None), None, False),
        (REMOVED, wish(5), None, True),
        (replace(DONE, overruled="4/1"), wish(4), 5, False),  # older than what was carried here
        (replace(DONE, overruled="4/1"), wish(4, 2), 5, True),
        (replace(DONE, overruled="4/1"), wish(4, 1, Carried), 5, True),
    ],
)
def test_what_is_due(record: StateRecord, wanted: Wish, running: int | None, due: bool) -> None:
    assert is_due(record, wanted, running) is due


def test_a_window_is_open_until_it_closes() -> None:
    assert wish(5).is_open(10.0)
    assert not replace(wish(5), assignment=Assignment(5, hold=True)).is_open(10.0)
    assert replace(wish(5), closes_at=11.0).is_open(10.0)
    assert not replace(wish(5), closes_at=10.0).is_open(10.0)


@pytest.mark.parametrize(
    ("record", "attempt"),
    [
        (NEW, 1),
        (replace(DONE, attempt=0), 1),
        (DONE, 2),
        (FAILED, 2),
        (replace(FAILED, target=4), 2),
        (replace(DONE, state=State.SELFTEST), 1),
    ],
)
def test_who_carries_a_release_means_it(record: StateRecord, attempt: int) -> None:
    assert next_attempt(record, 5) == attempt


def test_waits_grow_to_a_limit_and_are_never_shorter_than_asked_for() -> None:
    for failures in range(1, 40):
        assert 0.5 <= backoff_s(failures) <= LONGEST_WAIT_S
    assert backoff_s(1, 120.0) == 120.0
    assert backoff_s(40) >= LONGEST_WAIT_S / 2
