"""How many at once: limits, sites, windows, penalties, and what is skipped."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from edgeml_devices.messages import State

from edgeml.targets import target, target_to_json
from tests.integration.rollouts.fleet import PI, Fleet

pytestmark = pytest.mark.anyio


async def test_never_more_devices_than_allowed_are_under_way(fleet: Fleet) -> None:
    await fleet.add(6)
    rollout = await fleet.start(max_concurrent=2)
    for _ in range(3):
        await fleet.tick()
        under_way = (await fleet.states(rollout))["ASSIGNED"]
        assert len(under_way) == 2
        await fleet.commit(*under_way)
    await fleet.tick()
    assert await fleet.state(rollout) == "FINISHED"


async def test_a_site_loses_no_more_devices_at_once_than_its_budget_over_all_rollouts(fleet: Fleet) -> None:
    berlin = await fleet.add(4, labels={"site": "berlin"})
    lagos = await fleet.add(4, labels={"site": "lagos"})
    nowhere = await fleet.add(3)
    budget = {"group_by": "site", "max_unavailable": 1}
    first = await fleet.start(budget=budget, selector=f"id in ({berlin[0]}, {lagos[0]})")
    second = await fleet.start(budget=budget, selector=f"id notin ({berlin[0]}, {lagos[0]})")
    await fleet.tick()
    assigned = set(await fleet.assigned())
    assert [len(assigned & set(site)) for site in (berlin, lagos, nowhere)] == [1, 1, 1]
    await fleet.commit(*assigned)
    await fleet.tick()
    assert await fleet.state(first) in {"RUNNING", "FINISHED"}
    under_way = [*(await fleet.states(first)).get("ASSIGNED", []), *(await fleet.states(second))["ASSIGNED"]]
    assert [len(set(under_way) & set(site)) for site in (berlin, lagos, nowhere)] == [1, 1, 1]


async def test_a_full_site_keeps_no_other_site_waiting(fleet: Fleet) -> None:
    await fleet.add(30, labels={"site": "berlin"})
    (lagos,) = await fleet.add(1, labels={"site": "lagos"})
    await fleet.start(budget={"group_by": "site", "max_unavailable": 1}, max_concurrent=2)
    await fleet.tick()
    assert lagos in await fleet.assigned()


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


async def test_before_its_window_a_device_fetches_and_tests_and_switches_when_it_opens(fleet: Fleet) -> None:
    fleet.now = at("2026-03-02 20:00")  # a Monday; 21:00 in Berlin
    (device,) = await fleet.add(1)
    windows = [{"start": "22:00", "duration_s": 3600, "days": ["mon"]}]
    rollout = await fleet.start(windows=windows, timezone="Europe/Berlin")
    await fleet.tick()
    assert (await fleet.assigned())[device].hold
    assert await fleet.states(rollout) == {"HELD": [device]}
    fleet.now = at("2026-03-02 21:00")
    await fleet.tick()
    assigned = (await fleet.assigned())[device]
    assert not assigned.hold
    assert assigned.open_until == at("2026-03-02 22:00"), (
        "a device that is offline then must not switch later"
    )
    assert await fleet.states(rollout) == {"ASSIGNED": [device]}


async def test_when_the_window_closes_those_that_have_not_switched_are_held_again(fleet: Fleet) -> None:
    fleet.now = at("2026-03-02 22:30")
    switching, fetching = await fleet.add(2)
    rollout = await fleet.start(windows=[{"start": "22:00", "duration_s": 3600}])
    await fleet.tick()
    await fleet.at(State.PROBATION, switching, running=2)
    await fleet.at(State.FETCHING, fetching)
    fleet.now = at("2026-03-02 23:00")
    await fleet.tick()
    assert await fleet.states(rollout) == {"ASSIGNED": [switching], "HELD": [fetching]}
    assert (await fleet.assigned())[fetching].hold
    assert not (await fleet.assigned())[switching].hold


async def test_those_that_are_ready_switch_first_and_holds_take_places_when_they_end(fleet: Fleet) -> None:
    fleet.now = at("2026-03-02 20:00")
    ids = await fleet.add(5)
    rollout = await fleet.start(windows=[{"start": "22:00", "duration_s": 3600}], max_concurrent=1)
    await fleet.tick()
    assert await fleet.states(rollout) == {"HELD": ids}, "held devices take no place"
    await fleet.say(ids[3], State.SELFTEST, running=1, target=2, ready=True)
    fleet.now = at("2026-03-02 22:00")
    await fleet.tick()
    assert (await fleet.states(rollout))["ASSIGNED"] == [ids[3]]


async def test_what_cannot_run_the_release_is_skipped_and_counts_as_no_failure(fleet: Fleet) -> None:
    (fits,) = await fleet.add(1)
    (engineless,) = await fleet.add(1, facts=PI | {"engines": {}})
    (unknown,) = await fleet.add(1, facts=None)
    rollout = await fleet.start()
    await fleet.tick()
    assert sorted(await fleet.assigned()) == [fits, unknown], "who has not said what it is decides for itself"
    row = (await fleet.rows(rollout))[engineless]
    assert (row.state, row.reason) == ("SKIPPED", "incompatible")
    assert "litert is not installed" in row.detail
    await fleet.commit(fits, unknown)
    await fleet.tick()
    assert await fleet.state(rollout) == "FINISHED"


async def test_what_runs_the_release_already_is_skipped(fleet: Fleet) -> None:
    (there,) = await fleet.add(1, runs=2)
    (other,) = await fleet.add(1)
    rollout = await fleet.start()
    await fleet.tick()
    assert sorted(await fleet.assigned()) == [other]
    assert (await fleet.rows(rollout))[there].reason == "already_running"


async def test_a_device_that_was_retired_meanwhile_is_skipped(fleet: Fleet) -> None:
    first, second, third = await fleet.add(3)
    rollout = await fleet.start(max_concurrent=2)
    await fleet.tick()
    under_way = sorted(await fleet.assigned())
    (waiting,) = {first, second, third} - set(under_way)
    await fleet.retire(under_way[0], waiting)
    await fleet.commit(under_way[1])
    await fleet.tick()
    await fleet.tick()
    rows = await fleet.rows(rollout)
    assert [rows[one].reason for one in (under_way[0], waiting)] == ["retired", "retired"]
    assert await fleet.state(rollout) == "FINISHED"


async def test_a_device_that_fails_too_often_is_left_alone_until_its_time_or_a_pardon(fleet: Fleet) -> None:
    bad, good = await fleet.add(2)
    policy = {
        "penalty": {"failures": 2, "period_s": 3600, "duration_s": 600},
        "max_failed_share": 1.0,
        "success_threshold": 0.5,
        "open_ended": True,
    }
    rollout = await fleet.start(**policy)
    for _ in range(2):
        await fleet.tick()
        await fleet.fail(bad)
        await fleet.tick()
        await fleet.act("retry", rollout, [])
    await fleet.commit(good)
    await fleet.tick()
    row = (await fleet.rows(rollout))[bad]
    assert (row.state, row.reason) == ("SKIPPED", "penalty_box")
    await fleet.tick(300)
    assert (await fleet.rows(rollout))[bad].reason == "penalty_box"
    await fleet.tick(301)
    row = (await fleet.rows(rollout))[bad]
    assert (row.state, row.attempt) == ("ASSIGNED", 3)
    await fleet.fail(bad)
    await fleet.tick()
    await fleet.act("retry", rollout, ["name-" + bad])
    await fleet.act("pardon", bad)
    await fleet.tick()
    assert (await fleet.rows(rollout))[bad].state == "ASSIGNED"


async def test_facts_of_another_version_are_no_reason_to_leave_a_device_out(fleet: Fleet) -> None:
    odd = PI | {"target": target_to_json(target("raspberry-pi-4")) | {"cores": "four"}}
    (device,) = await fleet.add(1, facts=odd)
    await fleet.start()
    await fleet.tick()
    assert device in await fleet.assigned()
