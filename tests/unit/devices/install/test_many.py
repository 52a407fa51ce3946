"""Many devices at once: each on its own, and an interruption that all of them hear."""

from __future__ import annotations

import signal
import threading
import time

from edgeml_devices.install.many import on_each
from edgeml_devices.install.words import Outcome, Standing, StepError, Watch
from edgeml_devices.messages import Reason, Result, State

from edgeml.errors import InstallError, TransportError


def _done(url: str, watch: Watch, stop: threading.Event) -> Outcome:
    return Outcome(url, Result.SUCCESSFUL)


def test_outcomes_come_in_the_order_of_the_devices():
    together = on_each(["c", "a", "b"], _done, parallel=2, watch=lambda *_: None)
    assert [one.url for one in together.outcomes] == ["c", "a", "b"]
    assert together.interruption is None


def test_what_fails_on_one_device_does_not_touch_the_others():
    faults = {
        "full": StepError(Reason.DISK_FULL, "no room"),
        "away": TransportError("no route"),
        "odd": InstallError("strange"),
        "bug": ZeroDivisionError("1/0"),
    }

    def work(url: str, watch: Watch, stop: threading.Event) -> Outcome:
        if url in faults:
            raise faults[url]
        return _done(url, watch, stop)

    outcomes = on_each([*faults, "well"], work, parallel=3, watch=lambda *_: None).outcomes
    assert [one.reason for one in outcomes] == [Reason.DISK_FULL, Reason.NETWORK, None, None, None]
    assert [one.result is Result.SUCCESSFUL for one in outcomes] == [False, False, False, False, True]
    assert "bug in edgeml" in outcomes[3].detail


def test_no_more_devices_than_asked_for_are_worked_on_at_a_time():
    lock, at_once, most = threading.Lock(), 0, 0
    three_run = threading.Barrier(3)

    def work(url: str, watch: Watch, stop: threading.Event) -> Outcome:
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        three_run.wait(60)
        time.sleep(0.01)
        with lock:
            at_once -= 1
        return _done(url, watch, stop)

    on_each([str(number) for number in range(12)], work, parallel=3, watch=lambda *_: None)
    assert most == 3


def test_each_device_tells_where_it_stands():
    told: list[tuple[str, Standing]] = []

    def work(url: str, watch: Watch, stop: threading.Event) -> Outcome:
        watch(Standing(State.STAGED))
        return _done(url, watch, stop)

    on_each(["a", "b"], work, parallel=1, watch=lambda url, standing: told.append((url, standing)))
    assert told == [("a", Standing(State.STAGED)), ("b", Standing(State.STAGED))]


def test_an_interruption_ends_what_runs_and_begins_nothing_new():
    both_run = threading.Barrier(2)

    def work(url: str, watch: Watch, stop: threading.Event) -> Outcome:
        both_run.wait(60)
        if url == "first":
            signal.raise_signal(signal.SIGINT)
        assert stop.wait(60)
        return Outcome(url, Result.FAILED_ROLLBACK_COMPLETE, Reason.ABORTED)

    together = on_each(["first", "second", "third"], work, parallel=2, watch=lambda *_: None)
    assert isinstance(together.interruption, KeyboardInterrupt)
    assert [one.result for one in together.outcomes] == [
        Result.FAILED_ROLLBACK_COMPLETE,
        Result.FAILED_ROLLBACK_COMPLETE,
        Result.FAILED_NO_STATE_CHANGE,
    ]
    assert together.outcomes[2].detail == "not begun"
