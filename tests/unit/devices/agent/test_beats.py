"""Beats count up for each process and release; a probation is judged by their sums."""

from __future__ import annotations

from dataclasses import replace

import pytest
from edgeml_devices.agent.beats import Beats, Heard, Probation, Sum
from edgeml_devices.agent.failures import StepFailedError
from edgeml_devices.messages import Reason

from edgeml.health import HealthBeat, HealthPolicy, beat_to_bytes
from edgeml.histogram import Histogram


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def beats(clock: Clock) -> Beats:
    return Beats(clock)


def beat(
    seq: int = 1, calls: int = 0, errors: int = 0, *, release: int = 1, process: str = "p", **more: object
) -> bytes:
    counted = Histogram({0: calls - errors}).to_json() if calls > errors else {}
    made = HealthBeat(
        "kws", release, "v", 1, process, seq, calls=calls, errors=errors, latency_counts=counted
    )
    return beat_to_bytes(replace(made, **more))  # type: ignore[arg-type]


def total(beats: Beats) -> tuple[int, int]:
    windows = beats.cut("kws", 1.0, 0.0)
    return sum(one.calls for one in windows), sum(one.errors for one in windows)


def test_counts_are_differences(beats: Beats) -> None:
    for datagram in (beat(1, 10, 1), beat(2, 15, 1), beat(3, 30, 2)):
        beats.take(datagram)
    assert total(beats) == (30, 2)
    beats.take(beat(4, 31, 2))
    assert total(beats) == (1, 0)
    assert total(beats) == (0, 0)


def test_a_datagram_that_comes_twice_or_late_counts_once(beats: Beats) -> None:
    for datagram in (beat(1, 10), beat(3, 30), beat(2, 20), beat(3, 30)):
        beats.take(datagram)
    assert total(beats) == (30, 0)


def test_what_an_old_process_counted_before_the_agent_started_is_left_out(beats: Beats) -> None:
    beats.take(beat(500, 1_000_000))
    beats.take(beat(501, 1_000_007))
    assert total(beats) == (7, 0)


def test_a_process_that_switches_counts_from_nothing_for_the_new_release(beats: Beats) -> None:
    beats.take(beat(500, 100))
    beats.take(beat(501, 5, release=2))
    windows = {one.release: one.calls for one in beats.cut("kws", 1.0, 0.0)}
    assert windows == {1: 0, 2: 5}


def test_windows_hold_what_the_server_asks_for(beats: Beats) -> None:
    beats.take(beat(1, 10, 2, detail="broken"))
    beats.take(beat(1, 5, process="q"))
    (window,) = beats.cut("kws", 300.0, 77.0)
    assert (window.processes, window.calls, window.errors) == (2, 15, 2)
    assert (window.at, window.duration_s, window.detail) == (77.0, 300.0, "broken")
    assert window.latency_counts == {"0": 13}


def test_nonsense_changes_nothing(beats: Beats) -> None:
    for datagram in (b"", b"{}", b"\xff" * 100, beat()[:-2]):
        beats.take(datagram)
    assert beats.models() == frozenset()


def test_who_reported_lately_is_expected_to_go_on(beats: Beats, clock: Clock) -> None:
    assert not beats.seen("kws", 30.0)
    beats.take(beat())
    assert beats.seen("kws", 30.0)
    assert not beats.seen("vww", 30.0)
    assert beats.releases("kws") == {1}
    clock.now += 31
    assert not beats.seen("kws", 30.0)


def test_who_is_done_with_a_model_is_expected_no_more_and_needs_no_files(beats: Beats) -> None:
    beats.take(beat(1))
    beats.take(beat(2, release=2))
    beats.take(beat(3, state="closed"))
    assert beats.seen("kws", 30.0)
    assert beats.releases("kws") == {2}
    beats.take(beat(4, release=2, state="closed"))
    assert not beats.seen("kws", 30.0)
    assert beats.releases("kws") == frozenset()


def test_a_script_that_ended_is_not_silent_but_one_that_was_killed_is(beats: Beats, clock: Clock) -> None:
    watched, judge = beats.watch("kws", 2), Probation(HealthPolicy(heartbeat="required"), True, clock.now)
    beats.take(beat(1, 5, release=2))
    beats.take(beat(2, 9, release=2, state="closed"))
    clock.now += 60
    judge.require_passed(watched, clock.now)
    assert watched.calls == 9
    beats.take(beat(1, 1, release=2, process="killed"))
    beats.take(beat(1, 1, release=2, process="script"))
    beats.take(beat(2, 1, release=2, process="script", state="closed"))
    clock.now += 31
    with pytest.raises(StepFailedError, match="silent for 31 s"):
        judge.require_sound(watched, clock.now)


def test_a_switch_is_deferred_as_long_as_a_process_asks(beats: Beats, clock: Clock) -> None:
    beats.take(beat(defer_s=20.0))
    clock.now += 5
    assert beats.deferred_s("kws") == 15.0
    clock.now += 20
    assert beats.deferred_s("kws") == 0.0


def test_a_watch_counts_its_own_release_from_its_beginning(beats: Beats) -> None:
    beats.take(beat(1, 10, release=2))
    watched = beats.watch("kws", 2)
    beats.take(beat(2, 12, release=2))
    beats.take(beat(3, 99, release=1))
    assert watched.calls == 2
    assert beats.watched("kws", 2) is watched


def test_a_flood_of_processes_and_releases_is_bounded(beats: Beats) -> None:
    for number in range(3000):
        beats.take(beat(1, 1, release=number, process=f"p{number}"))
        beats.take(beat(1, 1, release=1, process=f"q{number}"))
    assert len(beats._processes) == len(beats._releases) == 1000
    windows = beats.cut("kws", 1.0, 0.0)
    assert len(windows) == 16
    assert max(one.processes for one in windows) == 1000


def test_of_a_model_that_is_not_here_nothing_is_kept(clock: Clock) -> None:
    beats = Beats(clock, lambda name: name == "kws")
    beats.take(beat(model="vww"))
    beats.take(beat())
    assert beats.models() == {"kws"}
    assert not beats.seen("vww", 30.0)


# --- the judge


def judged(policy: HealthPolicy, found: Sum, *, expects: bool = False, now: float = 60.0) -> Reason | None:
    try:
        Probation(policy, expects, 0.0).require_passed(found, now)
    except StepFailedError as error:
        return error.reason
    return None


FINE = Sum(
    calls=100,
    errors=1,
    latency=Histogram.of([5.0] * 99),
    at_work={"p": Heard(1.0, 59.0)},
    last_beat=59.0,
)
SILENT = replace(FINE, at_work={"p": Heard(1.0, 20.0)}, last_beat=20.0)


@pytest.mark.parametrize(
    ("policy", "found", "expects", "reason"),
    [
        ({}, FINE, True, None),
        ({}, Sum(), False, None),
        ({}, Sum(), True, Reason.HEARTBEAT),
        ({"heartbeat": "none"}, Sum(), True, None),
        ({"heartbeat": "required"}, Sum(), False, Reason.HEARTBEAT),
        ({"min_calls": 101}, FINE, True, Reason.HEARTBEAT),
        ({}, SILENT, True, Reason.HEARTBEAT),
        ({}, replace(SILENT, at_work={}), True, None),
        ({"heartbeat": "required"}, replace(SILENT, at_work={}), False, None),
        ({"heartbeat": "none"}, SILENT, True, None),
        ({}, replace(FINE, errors=6), True, Reason.ERROR_RATE),
        ({"max_error_rate": 0.06}, replace(FINE, errors=6), True, None),
        ({"max_latency_p95_ms": 4.0}, FINE, True, Reason.LATENCY),
        ({"max_latency_p95_ms": 6.0}, FINE, True, None),
        ({}, replace(FINE, load_failed="no engine"), True, Reason.LOAD_FAILED),
    ],
)
def test_a_probation_is_judged_by_its_policy(
    policy: dict[str, object], found: Sum, expects: bool, reason: Reason | None
) -> None:
    assert judged(HealthPolicy(**policy), found, expects=expects) == reason  # type: ignore[arg-type]


def test_many_errors_end_a_probation_before_its_time() -> None:
    judge = Probation(HealthPolicy(), True, 0.0)
    judge.require_sound(replace(FINE, errors=9, calls=10), 5.0)
    with pytest.raises(StepFailedError, match="10 of 12 calls failed"):
        judge.require_sound(replace(FINE, errors=10, calls=12, last_beat=5.0), 5.0)


def reported(clock: Clock, *lives: tuple[int, int]) -> Sum:
    """Sum up processes that each reported every second from one time to another."""
    beats = Beats(clock)
    beats.watch("kws", 1)
    told = [
        (at, f"p{number}", at - first)
        for number, (first, last) in enumerate(lives)
        for at in range(first, last + 1)
    ]
    for at, process, seq in sorted(told):
        clock.now = at
        beats.take(beat(seq, process=process))
    return beats.watched("kws", 1)


CRASHES = HealthPolicy(heartbeat_timeout_s=10.0)


@pytest.mark.parametrize(
    "lives",
    [
        ((0, 1), (3, 4), (6, 7), (9, 10), (12, 13)),
        ((0, 6), (8, 9), (11, 12), (14, 15), (17, 18)),  # the first ran for long
    ],
)
def test_processes_that_crash_and_are_begun_again_fail_a_release(
    clock: Clock, lives: tuple[tuple[int, int], ...]
) -> None:
    found = reported(clock, *lives)
    judge = Probation(CRASHES, True, 0.0)
    judge.require_sound(found, clock.now)
    with pytest.raises(StepFailedError, match="and none that is left has run it for 5 s") as caught:
        judge.require_passed(found, clock.now)
    assert caught.value.reason == Reason.HEARTBEAT


@pytest.mark.parametrize(
    "lives", [((0, 2), (4, 14)), ((0, 8), (9, 19)), ((0, 1), (0, 12)), ((0, 0), (9, 30))]
)
def test_a_process_that_was_replaced_by_one_that_goes_on_is_no_crash(
    clock: Clock, lives: tuple[tuple[int, int], ...]
) -> None:
    found = reported(clock, *lives)
    Probation(CRASHES, True, 0.0).require_passed(found, clock.now)


def test_a_process_that_starts_slowly_is_waited_for(clock: Clock) -> None:
    found = reported(clock, (0, 0), (8, 11))
    Probation(CRASHES, True, 0.0).require_sound(found, clock.now)
