"""The engine's decisions, one rule at a time: pure functions, no database."""

from __future__ import annotations

from dataclasses import replace

import pytest
from edgeml_devices.messages import Result, State
from edgeml_devices.server.rollouts.engine import (
    Action,
    Assigned,
    Candidate,
    Counts,
    DeviceView,
    GateState,
    Places,
    Reading,
    RolloutView,
    Status,
    WaveView,
    has_switched,
    judge,
    settle,
    take,
    wave_sizes,
)
from edgeml_devices.server.rollouts.members import divide
from edgeml_devices.server.rollouts.policy import DeviceState, Policy, Wave, read_policy
from hypothesis import given
from hypothesis import strategies as st

from edgeml.errors import UsageError

NOW = 1000.0
POLICY = Policy("kws", 2, selector="", waves=(Wave(percent=50), Wave(percent=100)))
UNDER_WAY = DeviceView(
    "d", DeviceState.ASSIGNED, "r", 2, 1, assigned=Assigned("r", 2, 1), status=Status("IDLE", 1, None, 1)
)


def ended(result: Result, running: int, *, attempt: int = 1, reason: str | None = None) -> Status:
    return Status(State.IDLE, running, 2, attempt, result, reason)


# --- outcomes


def test_silence_is_no_outcome() -> None:
    assert settle(UNDER_WAY) is None
    assert settle(replace(UNDER_WAY, status=None)) is None


@pytest.mark.parametrize("state", list(State))
def test_a_state_without_a_result_is_no_outcome(state: State) -> None:
    assert settle(replace(UNDER_WAY, status=Status(state, 2, 2, 1))) is None


def test_the_result_of_another_attempt_or_release_is_no_outcome() -> None:
    assert settle(replace(UNDER_WAY, status=ended(Result.SUCCESSFUL, 2, attempt=2))) is None
    other = Status(State.IDLE, 3, 3, 1, Result.SUCCESSFUL)
    assert settle(replace(UNDER_WAY, status=other)) is None


def test_success_is_verified_on_the_release_that_runs() -> None:
    good, fallen = (
        settle(replace(UNDER_WAY, status=ended(Result.SUCCESSFUL, running))) for running in (2, 1)
    )
    assert good is not None
    assert good.state is DeviceState.SUCCEEDED
    assert fallen is not None
    assert (fallen.state, fallen.reason) == (DeviceState.FAILED, "fell_back")


@pytest.mark.parametrize("result", [one for one in Result if one is not Result.SUCCESSFUL])
def test_every_other_result_is_a_failure_with_its_reason(result: Result) -> None:
    found = settle(replace(UNDER_WAY, status=ended(result, 1, reason="parity")))
    assert found is not None
    assert (found.state, found.reason) == (DeviceState.FAILED, "parity")


def test_a_device_that_was_asked_something_else_counts_neither_way() -> None:
    for assigned, reason in (
        (None, "by_hand"),
        (Assigned(None, 3, 1), "by_hand"),
        (Assigned("x", 3, 1), "superseded"),
    ):
        found = settle(replace(UNDER_WAY, assigned=assigned))
        assert found is not None
        assert (found.state, found.reason) == (DeviceState.SKIPPED, reason)


def test_what_a_device_ended_because_it_was_asked_something_else_is_no_failure() -> None:
    status = ended(Result.FAILED_NO_STATE_CHANGE, 1, reason="superseded")
    found = settle(replace(UNDER_WAY, assigned=Assigned("x", 3, 1), status=status))
    assert found is not None
    assert found.state is DeviceState.SKIPPED
    ours = settle(replace(UNDER_WAY, status=status))
    assert ours is not None
    assert ours.state is DeviceState.FAILED


def test_a_held_device_may_be_silent_until_its_window_opens() -> None:
    silent = replace(UNDER_WAY, silent=True)
    found = settle(silent)
    assert found is not None
    assert found.reason == "silent"
    assert settle(replace(silent, state=DeviceState.HELD)) is None


@pytest.mark.parametrize("state", list(State))
def test_only_what_is_behind_switching_cannot_just_be_dropped(state: State) -> None:
    behind = {State.SWITCHING, State.PROBATION, State.COMMITTED, State.ROLLING_BACK}
    assert has_switched(replace(UNDER_WAY, status=Status(state, 1, 2, 1))) == (state in behind)
    assert not has_switched(replace(UNDER_WAY, status=Status(state, 1, 2, 7))), "of another attempt"


# --- waves


def view(*waves: Counts, policy: Policy = POLICY, reached_at: float | None = None, **more) -> RolloutView:
    views = tuple(WaveView(number, counts, reached_at) for number, counts in enumerate(waves, 1))
    return RolloutView(policy, views, **more)


@pytest.mark.parametrize(
    ("counts", "action"),
    [
        (Counts(waiting=10), Action.KEEP),
        (Counts(assigned=1, succeeded=8, held=1), Action.KEEP),
        (Counts(assigned=1, succeeded=9), Action.ADVANCE),
        (Counts(succeeded=9, failed=1), Action.ADVANCE),
        (Counts(succeeded=8, failed=2), Action.PAUSE),
        (Counts(skipped=3, already=3), Action.ADVANCE),
        (Counts(skipped=3, already=2), Action.PAUSE),
        (Counts(), Action.ADVANCE),
        (Counts(forgiven=1), Action.PAUSE),
        (Counts(failed=1), Action.PAUSE),
        (Counts(failed=1, waiting=20), Action.KEEP),
    ],
)
def test_a_wave_advances_by_what_has_committed(counts: Counts, action: Action) -> None:
    assert judge(view(counts), NOW).action is action


def test_failures_of_earlier_waves_still_stop_the_rollout() -> None:
    late = view(Counts(succeeded=3, failed=2), Counts(waiting=90))
    assert judge(late, NOW).action is Action.PAUSE


def test_the_error_policy_says_whether_to_pause_or_to_abort() -> None:
    failed = Counts(succeeded=3, failed=2)
    assert judge(view(failed, policy=replace(POLICY, on_error="abort")), NOW).action is Action.ABORT


def test_a_share_that_is_just_met_is_met() -> None:
    policy = replace(POLICY, max_failed_share=0.1)
    assert judge(view(Counts(succeeded=27, failed=3), policy=policy), NOW).action is Action.ADVANCE
    assert judge(view(Counts(succeeded=26, failed=4), policy=policy), NOW).action is Action.PAUSE


def test_it_finishes_only_when_no_device_of_any_wave_lacks_an_outcome() -> None:
    assert judge(view(Counts(succeeded=10), Counts(succeeded=10)), NOW).action is Action.FINISH
    for lacking in (
        Counts(succeeded=10, assigned=1),
        Counts(succeeded=10, held=1),
        Counts(succeeded=10, waiting=1),
    ):
        assert judge(view(lacking, Counts(succeeded=10)), NOW).action is Action.KEEP


def test_missing_data_keep_the_wave_and_pause_after_the_time_for_it() -> None:
    missing = Reading("latency_p95_ratio", GateState.MISSING, 1.2, None, "no calls")
    waiting = judge(view(Counts(succeeded=10), readings=(missing,)), NOW)
    assert (waiting.action, waiting.data_missing_since) == (Action.KEEP, NOW)
    since = WaveView(1, Counts(succeeded=10), NOW, NOW)
    late = RolloutView(POLICY, (since,), (missing,))
    assert judge(late, NOW + 3599).action is Action.KEEP
    assert judge(late, NOW + 3600).action is Action.PAUSE


def test_a_failed_gate_does_not_wait_for_the_threshold() -> None:
    failed = Reading("error_rate_difference", GateState.FAILED, 0.01, 0.5, "pi")
    assert judge(view(Counts(waiting=9, succeeded=1), readings=(failed,)), NOW).action is Action.PAUSE


def test_the_soak_time_begins_again_when_the_threshold_is_lost() -> None:
    policy = replace(POLICY, soak_s=60)
    first = judge(view(Counts(succeeded=10), policy=policy), NOW)
    assert (first.action, first.reached_at) == (Action.KEEP, NOW)
    lost = judge(view(Counts(succeeded=8, waiting=2), policy=policy, reached_at=NOW), NOW + 50)
    assert lost.reached_at is None
    again = judge(view(Counts(succeeded=10), policy=policy, reached_at=NOW), NOW + 60)
    assert again.action is Action.ADVANCE


def test_a_clock_that_is_set_back_does_not_lengthen_a_soak() -> None:
    policy = replace(POLICY, soak_s=60)
    back = judge(view(Counts(succeeded=10), policy=policy, reached_at=NOW + 86400), NOW)
    assert (back.action, back.reached_at) == (Action.KEEP, NOW)
    assert "60 s more" in back.reason


def test_a_clock_that_is_set_back_does_not_lengthen_the_wait_for_data() -> None:
    missing = Reading("latency_p95_ratio", GateState.MISSING, 1.2)
    wave = WaveView(1, Counts(succeeded=10), NOW, NOW + 86400)
    assert judge(RolloutView(POLICY, (wave,), (missing,)), NOW).data_missing_since == NOW


COUNTS = st.builds(Counts, *([st.integers(0, 40)] * 5))


@given(COUNTS, st.floats(0, 1), st.floats(0, 1))
def test_no_wave_advances_below_its_threshold(counts: Counts, threshold: float, failed_share: float) -> None:
    policy = replace(POLICY, success_threshold=threshold, max_failed_share=failed_share)
    verdict = judge(view(counts, policy=policy), NOW)
    if verdict.action is Action.ADVANCE and counts.counting:
        assert counts.succeeded >= max(1, threshold * counts.counting - 1e-6)
    assert verdict == judge(view(counts, policy=policy), NOW), "the same view, the same decision"


# --- places


@given(
    st.lists(st.sampled_from("abc"), max_size=30),
    st.integers(0, 10),
    st.dictionaries(st.sampled_from("abc"), st.integers(0, 4)),
    st.one_of(st.none(), st.integers(1, 3)),
)
def test_no_site_and_no_total_is_exceeded_and_no_place_stays_empty(sites, total, used, limit) -> None:
    candidates = [Candidate(str(place), site) for place, site in enumerate(sites)]
    taken = take(candidates, Places(total, used, limit))
    assert len(taken) <= total
    by_site = {site: used.get(site, 0) + sum(sites[int(one)] == site for one in taken) for site in "abc"}
    for site, number in by_site.items():
        assert limit is None or number <= max(limit, used.get(site, 0))
    if len(taken) < total:
        left = {one.site for one in candidates if one.device_id not in taken}
        assert all(limit is not None and by_site[site] >= limit for site in left)


@given(
    st.integers(0, 60),
    st.lists(
        st.one_of(
            st.floats(0.5, 100).map(lambda x: ("percent", x)), st.integers(1, 9).map(lambda x: ("count", x))
        ),
        min_size=1,
        max_size=5,
    ),
)
def test_waves_take_no_device_twice_and_the_last_of_100_percent_takes_all(total: int, kinds) -> None:
    shares = sorted(value for kind, value in kinds if kind == "percent")
    waves = [Wave(percent=shares.pop(0)) if kind == "percent" else Wave(count=value) for kind, value in kinds]
    whole = Policy("kws", 2, selector="", waves=(*waves, Wave(percent=100)))
    sizes = wave_sizes(whole, {}, total)
    assert all(size >= 0 for size in sizes)
    assert sum(sizes) == total
    ids = [f"d{place}" for place in range(total)]
    members = divide(whole, ids, {})
    assert sorted(one.device_id for one in members) == sorted(ids)
    found = [sum(one.wave == number for one in members) for number in range(1, len(whole.waves) + 1)]
    assert tuple(found) == sizes


# --- rules as they are written


def test_an_unknown_key_is_refused_by_name() -> None:
    good = {"model": "kws", "release": 2, "group": "all"}
    assert read_policy(good).success_threshold == 0.9
    for data, said in (
        (good | {"wave": []}, "unknown key 'wave'"),
        (good | {"gates": {"latency": 1}}, "rollout.gates: unknown key 'latency'"),
        (good | {"waves": [{"percent": 1}, {"share": 3}]}, "rollout.waves: unknown key 'share'"),
    ):
        with pytest.raises(UsageError, match=said):
            read_policy(data)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"selector": "a=b"}, "either group or selector"),
        ({"waves": []}, "1 to 100 waves"),
        ({"waves": [{"percent": 50}, {"percent": 20}]}, "must be above 50"),
        ({"waves": [{"percent": 5, "count": 1}]}, "needs one of percent, count and selector"),
        ({"success_threshold": 1.5}, "between 0 and 1"),
        ({"max_concurrent": 0}, "at least 1"),
        ({"windows": [{"start": "25:00", "duration_s": 60}]}, "must be HH:MM"),
        ({"windows": [{"start": "20:00", "duration_s": 60, "days": ["friday"]}]}, "days must be among"),
        ({"timezone": "Berlin"}, "is not known"),
        ({"timezone": "../../etc/passwd"}, "is not known"),
        ({"on_error": "ignore"}, "must be one of pause, abort"),
        ({"soak_s": -1}, "between 0 and a year"),
        ({"soak_s": "inf"}, "between 0 and a year"),
        ({"success_threshold": "nan"}, "between 0 and 1"),
        ({"release": "2"}, "must be a whole number"),
        ({"release": 2**63}, "release must be at most 9223372036854775807"),
        ({"priority": 2**31}, "priority must be at most 2147483647"),
        ({"priority": -(2**31)}, "priority must be at most 2147483647"),
        ({"max_failed": 10**30}, "max_failed must be at most"),
        ({"waves": [{"count": 2**31}]}, r"waves\[0\].count must be at most"),
        ({"model": "k\0"}, "model holds characters that are no text"),
        ({"group": "a\ud800"}, "group holds characters that are no text"),
        ({"waves": [{"selector": "a=\udfff"}]}, r"waves\[0\].selector holds characters"),
        ({"budget": {"group_by": "\0", "max_unavailable": 1}}, "budget.group_by holds characters"),
    ],
)
def test_rules_that_cannot_be_are_refused_with_their_key(change: dict, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        read_policy({"model": "kws", "release": 2, "group": "all"} | change)
