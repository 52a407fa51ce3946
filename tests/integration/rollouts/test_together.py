"""Two rollouts at once, hands, and what an abort gives back."""

from __future__ import annotations

import pytest
from edgeml_devices.messages import State
from edgeml_devices.server.refusals import RefusalError
from edgeml_devices.server.rollouts.engine import ABORT_PATIENCE_S
from edgeml_devices.server.rollouts.withdrawing import withdraw

from tests.integration.rollouts.fleet import ADA, BOB, MODEL, Fleet

pytestmark = pytest.mark.anyio


async def test_the_higher_priority_wins_and_the_other_counts_its_devices_neither_way(fleet: Fleet) -> None:
    (device,) = await fleet.add(1)
    low = await fleet.start(release=2)
    await fleet.tick()
    high = await fleet.start(release=3, priority=5)
    await fleet.tick()
    assert (await fleet.assigned())[device].release == 3
    await fleet.tick()
    assert (await fleet.rows(low))[device].reason == "superseded"
    assert (await fleet.rows(high))[device].state == "ASSIGNED"


async def test_a_lower_one_waits_while_the_higher_is_at_work_and_takes_over_where_that_failed(
    fleet: Fleet,
) -> None:
    works, fails = await fleet.add(2)
    high = await fleet.start(release=3, priority=5, max_failed_share=1.0, success_threshold=0.5)
    await fleet.tick()
    low = await fleet.start(release=2)
    await fleet.tick()
    assert await fleet.states(low) == {"WAITING": [works, fails]}
    await fleet.commit(works)
    await fleet.fail(fails)
    await fleet.tick()
    await fleet.tick()
    assert (await fleet.rows(low))[works].reason == "superseded"
    assert (await fleet.assigned())[fails].release == 2
    assert (await fleet.rows(high))[fails].state == "FAILED"


async def test_a_paused_rollout_blocks_no_other(fleet: Fleet) -> None:
    (device,) = await fleet.add(1)
    stuck = await fleet.start(release=3, priority=5)
    await fleet.tick()
    await fleet.act("pause", stuck, "")
    await fleet.start(release=2)
    await fleet.tick()
    assert (await fleet.assigned())[device].release == 2
    await fleet.tick()
    assert (await fleet.rows(stuck))[device].reason == "superseded"


async def test_among_equals_the_newer_wins(fleet: Fleet) -> None:
    (device,) = await fleet.add(1)
    await fleet.start(release=2)
    await fleet.tick()
    await fleet.start(release=3)
    await fleet.tick()
    assert (await fleet.assigned())[device].release == 3


async def test_what_is_assigned_by_hand_after_the_start_stands(fleet: Fleet) -> None:
    under_way, waiting = await fleet.add(2)
    rollout = await fleet.start(release=2, waves=[{"selector": f"id={under_way}"}, {"percent": 100}])
    await fleet.tick()
    fleet.now += 1
    await fleet.assign_by_hand(under_way, 3)
    await fleet.assign_by_hand(waiting, 3)
    await fleet.tick()
    await fleet.act("advance", rollout)
    await fleet.tick()
    rows = await fleet.rows(rollout)
    assert [rows[one].reason for one in (under_way, waiting)] == ["by_hand", "by_hand"]
    assert {row.release for row in (await fleet.assigned()).values()} == {3}


async def test_an_abort_gives_back_what_was_assigned_before_and_lets_the_switched_finish(
    fleet: Fleet,
) -> None:
    had, had_none, switched, waiting = await fleet.add(4)
    await fleet.assign_by_hand(had, 1)
    rollout = await fleet.start(waves=[{"selector": f"id notin ({waiting})"}, {"percent": 100}])
    await fleet.tick()
    await fleet.at(State.FETCHING, had, had_none)
    await fleet.at(State.PROBATION, switched, running=2)
    await fleet.act("abort", rollout, "")
    await fleet.tick()
    assert await fleet.state(rollout) == "ABORTING"
    assigned = await fleet.assigned()
    assert (assigned[had].release, assigned[had].rollout_id) == (1, None)
    assert had_none not in assigned
    assert assigned[switched].release == 2
    await fleet.commit(switched)
    await fleet.tick()
    assert await fleet.state(rollout) == "ABORTED"
    assert await fleet.states(rollout) == {
        "CANCELLED": [had, had_none, waiting],
        "SUCCEEDED": [switched],
    }


async def test_an_abort_takes_the_switched_back_where_that_is_the_rule(fleet: Fleet) -> None:
    (switched,) = await fleet.add(1)
    (new,) = await fleet.add(1, runs=None)
    rollout = await fleet.start(on_abort="rollback")
    await fleet.tick()
    await fleet.at(State.PROBATION, switched, new, running=2)
    await fleet.act("abort", rollout, "")
    await fleet.tick()
    assert await fleet.state(rollout) == "ABORTED"
    assigned = await fleet.assigned()
    assert (assigned[switched].release, assigned[switched].on_abort) == (1, "rollback")
    assert (assigned[new].release, assigned[new].on_abort) == (None, "rollback")


async def test_an_abort_takes_nobody_back_to_a_withdrawn_release(fleet: Fleet) -> None:
    (switched,) = await fleet.add(1)
    rollout = await fleet.start(on_abort="rollback")
    await fleet.tick()
    await fleet.at(State.PROBATION, switched, running=2)
    await fleet.withdraw(1)
    await fleet.act("abort", rollout, "")
    await fleet.tick()
    assert await fleet.state(rollout) == "ABORTED"
    assert switched not in await fleet.assigned()
    assert (await fleet.rows(rollout))[switched].detail == (
        "nothing is assigned: release 1, which it ran before, was withdrawn"
    )


async def test_a_withdrawn_release_is_taken_back_from_devices_that_a_finished_rollout_left_behind(
    fleet: Fleet,
) -> None:
    (offline,) = await fleet.add(1)
    rollout = await fleet.start()
    await fleet.tick()
    await fleet.act("advance", rollout)
    assert (await fleet.assigned())[offline].release == 2, "as a wish"
    await withdraw(fleet.database, ADA, MODEL, 2)
    assert offline not in await fleet.assigned()


async def test_a_withdrawal_leaves_devices_under_way_to_the_abort_that_gives_back_what_they_had(
    fleet: Fleet,
) -> None:
    (device,) = await fleet.add(1)
    await fleet.assign_by_hand(device, 1)
    await fleet.start()
    await fleet.tick()
    await withdraw(fleet.database, ADA, MODEL, 2)
    assert (await fleet.assigned())[device].release == 2
    await fleet.tick()
    await fleet.tick()
    assert (await fleet.assigned())[device].release == 1


async def test_an_abort_does_not_wait_for_ever(fleet: Fleet) -> None:
    (device,) = await fleet.add(1)
    rollout = await fleet.start()
    await fleet.tick()
    await fleet.at(State.PROBATION, device, running=2)
    await fleet.act("abort", rollout, "")
    await fleet.tick(ABORT_PATIENCE_S - 10)
    assert await fleet.state(rollout) == "ABORTING"
    await fleet.tick(20)
    assert await fleet.state(rollout) == "ABORTED"
    assert (await fleet.rows(rollout))[device].reason == "no_answer"


async def test_a_retried_device_goes_back_to_what_it_had_before_the_rollout(fleet: Fleet) -> None:
    (device,) = await fleet.add(1)
    await fleet.assign_by_hand(device, 1)
    fleet.now += 1
    rollout = await fleet.start(max_failed_share=1.0, success_threshold=0.5)
    await fleet.tick()
    await fleet.fail(device)
    await fleet.tick()
    await fleet.act("retry", rollout, [])
    await fleet.act("resume", rollout)
    await fleet.tick()
    assert (await fleet.assigned())[device].attempt == 2
    await fleet.act("abort", rollout, "")
    await fleet.tick()
    assert (await fleet.assigned())[device].release == 1


@pytest.mark.parametrize("paused", [True, False])
async def test_a_withdrawn_release_ends_its_rollouts(fleet: Fleet, *, paused: bool) -> None:
    await fleet.add(2)
    rollout = await fleet.start()
    await fleet.tick()
    if paused:
        await fleet.act("pause", rollout, "")
    await fleet.withdraw(2)
    await fleet.tick()
    await fleet.tick()
    found = await fleet.rollout(rollout)
    assert (found.state, found.reason) == ("ABORTED", "kws/2 was withdrawn")
    assert await fleet.assigned() == {}
    with pytest.raises(RefusalError, match="was withdrawn"):
        await fleet.create()


async def test_a_new_rollout_of_the_same_release_tries_a_device_that_fell_back_again(fleet: Fleet) -> None:
    (device,) = await fleet.add(1)
    first = await fleet.start()
    await fleet.tick()
    await fleet.fail(device)
    await fleet.tick()
    await fleet.act("abort", first, "")
    await fleet.tick()
    await fleet.start()
    await fleet.tick()
    assert (await fleet.assigned())[device].attempt == 2


async def test_somebody_else_has_to_approve(fleet: Fleet) -> None:
    await fleet.add(1)
    rollout = await fleet.create(approval=True)
    with pytest.raises(RefusalError, match="WAITING_FOR_APPROVAL and cannot be started"):
        await fleet.act("start", rollout)
    with pytest.raises(RefusalError, match="approval of somebody else"):
        await fleet.act("approve", rollout)
    await fleet.act("approve", rollout, by=BOB)
    await fleet.act("start", rollout)
    await fleet.tick()
    assert len(await fleet.assigned()) == 1


async def test_what_was_denied_never_starts(fleet: Fleet) -> None:
    await fleet.add(1)
    rollout = await fleet.create(approval=True)
    await fleet.act("deny", rollout, "not on a Friday", by=BOB)
    for verb in ("start", "resume", "advance"):
        with pytest.raises(RefusalError, match="it has ended"):
            await fleet.act(verb, rollout)
    await fleet.tick()
    assert await fleet.assigned() == {}


@pytest.mark.parametrize("withdrawn", [True, False])
async def test_an_abort_gives_back_nothing_that_another_abort_took_away(
    fleet: Fleet, *, withdrawn: bool
) -> None:
    (runs_one,) = await fleet.add(1)
    (runs_none,) = await fleet.add(1, runs=None)
    first = await fleet.start(release=2)
    await fleet.tick()
    second = await fleet.start(release=3, priority=5)
    await fleet.tick()
    await fleet.act("abort", first, "bad")
    await fleet.tick()
    if withdrawn:
        await fleet.withdraw(2)
    await fleet.act("abort", second, "")
    await fleet.tick()
    assert await fleet.state(second) == "ABORTED"
    assigned = await fleet.assigned()
    assert (assigned[runs_one].release, assigned[runs_one].rollout_id) == (1, None)
    assert runs_none not in assigned


async def test_an_abort_gives_back_no_release_that_was_withdrawn_since(fleet: Fleet) -> None:
    runs_one, runs_it = await fleet.add(2)
    for one in (runs_one, runs_it):
        await fleet.assign_by_hand(one, 2)
    await fleet.commit(runs_it)
    fleet.now += 1
    rollout = await fleet.start(release=3)
    await fleet.tick()
    await fleet.withdraw(2)
    await fleet.act("abort", rollout, "")
    await fleet.tick()
    assigned = await fleet.assigned()
    assert {one: row.release for one, row in assigned.items()} == {runs_one: 1}


async def test_an_abort_leaves_a_device_on_what_it_runs_though_the_rollout_that_brought_it_was_aborted(
    fleet: Fleet,
) -> None:
    done, _ = await fleet.add(2)
    first = await fleet.start(release=2)
    await fleet.tick()
    await fleet.commit(done)
    await fleet.tick()
    await fleet.act("abort", first, "")
    await fleet.tick()
    second = await fleet.start(release=3, selector=f"id={done}")
    await fleet.tick()
    await fleet.act("abort", second, "")
    await fleet.tick()
    row = (await fleet.assigned())[done]
    assert (row.release, row.attempt, row.rollout_id) == (2, 1, None)
