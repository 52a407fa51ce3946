"""Waves, thresholds, soak time and late joiners, on both databases."""

from __future__ import annotations

import pytest
from edgeml_devices.messages import Result, State
from edgeml_devices.server.rollouts.tables import rollouts
from sqlalchemy import update

from tests.integration.rollouts.fleet import Fleet

pytestmark = pytest.mark.anyio
TWO_WAVES = [{"percent": 20}, {"percent": 100}]


async def test_a_wave_begins_when_enough_of_the_one_before_have_committed(fleet: Fleet) -> None:
    await fleet.add(10)
    rollout = await fleet.start(waves=TWO_WAVES)
    await fleet.tick()
    first = await fleet.in_wave(rollout, 1)
    assert len(first) == 2
    assert sorted(await fleet.assigned()) == first
    await fleet.commit(first[0])
    await fleet.tick()
    assert len(await fleet.assigned()) == 2, "one of two is not nine tenths"
    await fleet.commit(first[1])
    await fleet.tick()
    assert len(await fleet.assigned()) == 10
    await fleet.commit(*await fleet.in_wave(rollout, 2))
    await fleet.tick()
    assert await fleet.state(rollout) == "FINISHED"
    assert [entry.detail for entry in await fleet.log("rollout.wave")] == [
        {"wave": 1, "devices": 2},
        {"wave": 2, "devices": 8},
    ]


async def test_what_a_device_says_before_it_has_committed_is_no_success(fleet: Fleet) -> None:
    (device,) = await fleet.add(1)
    rollout = await fleet.start()
    await fleet.tick()
    for state in (State.ACCEPTED, State.SWITCHING, State.PROBATION):
        await fleet.at(state, device, running=2)
        await fleet.tick()
        assert await fleet.states(rollout) == {"ASSIGNED": [device]}


async def test_a_device_that_reports_success_on_another_release_has_failed(fleet: Fleet) -> None:
    (device,) = await fleet.add(1)
    rollout = await fleet.start()
    await fleet.tick()
    await fleet.say(device, State.IDLE, running=1, target=2, result=Result.SUCCESSFUL)
    await fleet.tick()
    row = (await fleet.rows(rollout))[device]
    assert (row.state, row.reason) == ("FAILED", "fell_back")


async def test_a_device_that_falls_back_after_it_committed_has_failed(fleet: Fleet) -> None:
    ids = await fleet.add(2)
    rollout = await fleet.start(success_threshold=1.0)
    await fleet.tick()
    await fleet.commit(ids[0])
    await fleet.tick()
    await fleet.say(ids[0], State.IDLE, running=1, target=2, result=Result.SUCCESSFUL)
    await fleet.tick()
    assert (await fleet.rows(rollout))[ids[0]].reason == "fell_back"


async def test_a_retried_device_gets_a_new_attempt(fleet: Fleet) -> None:
    (device,) = await fleet.add(1)
    rollout = await fleet.start()
    await fleet.tick()
    await fleet.fail(device)
    await fleet.tick()
    assert await fleet.state(rollout) == "PAUSED"
    assert await fleet.act("retry", rollout, []) == 1
    await fleet.act("resume", rollout)
    await fleet.tick()
    assert (await fleet.assigned())[device].attempt == 2
    await fleet.commit(device)
    await fleet.tick()
    assert await fleet.state(rollout) == "FINISHED"


async def test_the_next_wave_waits_until_the_one_before_has_soaked(fleet: Fleet) -> None:
    await fleet.add(10)
    rollout = await fleet.start(waves=TWO_WAVES, soak_s=60)
    await fleet.tick()
    await fleet.commit(*await fleet.in_wave(rollout, 1))
    await fleet.tick()
    assert "soaks" in (await fleet.rollout(rollout)).reason
    await fleet.tick(59)
    assert (await fleet.rollout(rollout)).wave == 1
    await fleet.tick(2)
    assert (await fleet.rollout(rollout)).wave == 2


async def test_too_many_failures_pause_and_nothing_more_starts(fleet: Fleet) -> None:
    await fleet.add(20)
    rollout = await fleet.start(max_concurrent=10, max_failed_share=0.2, success_threshold=0.5)
    await fleet.tick()
    ids = sorted(await fleet.assigned())
    await fleet.fail(*ids[:4])
    await fleet.tick()
    assert await fleet.state(rollout) == "RUNNING", "four outcomes are below the sample of five"
    await fleet.commit(ids[4])
    await fleet.tick()
    assert await fleet.state(rollout) == "PAUSED"
    assert "4 of 5 devices failed" in (await fleet.rollout(rollout)).reason
    before = len(await fleet.assigned())
    await fleet.tick()
    assert len(await fleet.assigned()) == before


async def test_a_number_of_failures_aborts_where_that_is_the_rule(fleet: Fleet) -> None:
    await fleet.add(10)
    rollout = await fleet.start(max_failed=1, on_error="abort", max_concurrent=4)
    await fleet.tick()
    under_way = sorted(await fleet.assigned())
    await fleet.fail(*under_way[:2])
    await fleet.tick()
    await fleet.tick()
    assert await fleet.state(rollout) == "ABORTED"
    states = await fleet.states(rollout)
    assert states["FAILED"] == under_way[:2]
    assert len(states["CANCELLED"]) == 8


async def test_failures_that_were_seen_are_forgiven_on_resume_and_new_ones_are_not(fleet: Fleet) -> None:
    await fleet.add(10)
    rollout = await fleet.start(max_failed=1, max_concurrent=4, success_threshold=0.5)
    await fleet.tick()
    under_way = sorted(await fleet.assigned())
    await fleet.fail(*under_way[:2])
    await fleet.tick()
    assert await fleet.state(rollout) == "PAUSED"
    await fleet.act("resume", rollout)
    await fleet.tick()
    assert await fleet.state(rollout) == "RUNNING"
    await fleet.fail(*under_way[2:4])
    await fleet.tick()
    assert await fleet.state(rollout) == "PAUSED"


async def test_a_wave_that_can_no_longer_reach_its_threshold_pauses(fleet: Fleet) -> None:
    await fleet.add(4)
    rollout = await fleet.start(success_threshold=1.0, max_failed_share=0.5)
    await fleet.tick()
    await fleet.fail("d000")
    await fleet.commit("d001")
    await fleet.tick()
    assert await fleet.state(rollout) == "PAUSED"
    assert "must commit cannot" in (await fleet.rollout(rollout)).reason


async def test_a_canary_is_chosen_by_label_and_the_percentages_count_it_in(fleet: Fleet) -> None:
    await fleet.add(8)
    canaries = await fleet.add(2, labels={"ring": "canary"})
    rollout = await fleet.start(waves=[{"selector": "ring=canary"}, {"percent": 50}, {"percent": 100}])
    assert await fleet.in_wave(rollout, 1) == canaries
    assert [len(await fleet.in_wave(rollout, wave)) for wave in (2, 3)] == [3, 5]


async def test_a_canary_that_matches_nothing_pauses(fleet: Fleet) -> None:
    await fleet.add(2)
    rollout = await fleet.start(waves=[{"selector": "ring=canary"}, {"percent": 100}])
    await fleet.tick()
    assert await fleet.state(rollout) == "PAUSED"
    await fleet.act("advance", rollout)
    await fleet.tick()
    assert len(await fleet.assigned()) == 2


async def test_devices_in_no_wave_are_left_alone(fleet: Fleet) -> None:
    await fleet.add(4)
    rollout = await fleet.start(waves=[{"count": 1}])
    await fleet.tick()
    (device,) = await fleet.assigned()
    await fleet.commit(device)
    await fleet.tick()
    assert await fleet.state(rollout) == "FINISHED"
    assert len((await fleet.states(rollout))["SKIPPED"]) == 3


async def test_a_device_that_enters_the_group_later_joins_the_wave_that_was_released_last(
    fleet: Fleet,
) -> None:
    await fleet.add(10)
    rollout = await fleet.start(waves=TWO_WAVES)
    await fleet.tick()
    (late,) = await fleet.add(1)
    await fleet.tick(6)
    row = (await fleet.rows(rollout))[late]
    assert (row.wave, row.late, row.state) == (1, True, "ASSIGNED")
    first = await fleet.in_wave(rollout, 1)
    await fleet.fail(late)
    await fleet.commit(*(one for one in first if one != late))
    await fleet.tick()
    assert await fleet.state(rollout) == "PAUSED", "its failure counts as those of the others"


async def test_an_open_ended_rollout_takes_devices_after_its_last_wave_until_next_ends_it(
    fleet: Fleet,
) -> None:
    await fleet.add(2)
    rollout = await fleet.start(open_ended=True, success_threshold=0.5, max_failed=0)
    await fleet.tick()
    await fleet.commit("d000", "d001")
    await fleet.tick()
    assert await fleet.state(rollout) == "RUNNING"
    (late,) = await fleet.add(1)
    await fleet.tick(6)
    assert late in await fleet.assigned()
    await fleet.fail(late)
    await fleet.tick()
    assert await fleet.state(rollout) == "PAUSED", "the error stop holds for late devices, too"
    await fleet.act("advance", rollout)
    assert await fleet.state(rollout) == "FINISHED"


async def test_a_silent_device_counts_neither_way_and_comes_back_when_it_is_heard(fleet: Fleet) -> None:
    ids = await fleet.add(10)
    rollout = await fleet.start(silent_after_s=100, success_threshold=1.0, open_ended=True)
    await fleet.tick()
    await fleet.commit(*ids[1:])
    await fleet.tick(101)
    assert (await fleet.rows(rollout))[ids[0]].reason == "silent"
    assert await fleet.state(rollout) == "RUNNING"
    await fleet.at(State.FETCHING, ids[0])
    await fleet.tick(6)
    assert (await fleet.rows(rollout))[ids[0]].state == "ASSIGNED"
    await fleet.commit(ids[0])
    await fleet.tick()
    assert (await fleet.rows(rollout))[ids[0]].state == "SUCCEEDED"


async def test_an_outcome_counts_although_the_next_assignment_overwrote_the_status(fleet: Fleet) -> None:
    (device,) = await fleet.add(1)
    rollout = await fleet.start()
    await fleet.tick()
    await fleet.tell(device, 2, 1, Result.SUCCESSFUL)
    await fleet.assign_by_hand(device, 3)
    await fleet.say(device, State.FETCHING, running=2, target=3)
    await fleet.tick()
    assert (await fleet.rows(rollout))[device].state == "SUCCEEDED"


async def test_next_after_the_last_wave_finishes_and_leaves_assignments_as_a_wish(fleet: Fleet) -> None:
    ids = await fleet.add(3)
    rollout = await fleet.start(max_concurrent=2)
    await fleet.tick()
    assigned = sorted(await fleet.assigned())
    await fleet.act("advance", rollout)
    assert await fleet.state(rollout) == "FINISHED"
    assert sorted(await fleet.assigned()) == assigned
    assert (await fleet.states(rollout)) == {"SKIPPED": ids}


async def test_while_the_server_was_away_no_device_was_silent(fleet: Fleet) -> None:
    await fleet.add(20)
    rollout = await fleet.start(waves=[{"percent": 50}, {"percent": 100}], silent_after_s=100)
    await fleet.tick()
    first = await fleet.in_wave(rollout, 1)
    await fleet.commit(*first[:2])
    await fleet.tick()
    fleet.now += 7200
    fleet.restart()
    await fleet.tick()
    assert await fleet.states(rollout) == {
        "ASSIGNED": first[2:],
        "SUCCEEDED": first[:2],
        "WAITING": await fleet.in_wave(rollout, 2),
    }
    assert (await fleet.rollout(rollout)).wave == 1
    await fleet.tick(100)
    assert (await fleet.states(rollout))["SKIPPED"] == first[2:], "the server was there, and heard nothing"


async def test_a_clock_that_is_set_forward_makes_no_device_silent(fleet: Fleet) -> None:
    ids = await fleet.add(4)
    rollout = await fleet.start(silent_after_s=100)
    await fleet.tick(1000)
    fleet.set_clock_forward(86400)
    await fleet.tick()
    assert await fleet.states(rollout) == {"ASSIGNED": ids}
    await fleet.tick(100)
    assert await fleet.states(rollout) == {"SKIPPED": ids}


async def test_a_rollout_that_was_resumed_gives_its_devices_time_to_be_heard(fleet: Fleet) -> None:
    ids = await fleet.add(4)
    rollout = await fleet.start(silent_after_s=100)
    await fleet.tick()
    await fleet.act("pause", rollout, "")
    fleet.now += 99
    await fleet.act("resume", rollout)
    await fleet.tick(50)
    assert await fleet.states(rollout) == {"ASSIGNED": ids}
    await fleet.tick(50)
    assert await fleet.states(rollout) == {"SKIPPED": ids}


@pytest.mark.parametrize("attempt", [1_000_000, 2**31 - 1])
async def test_a_device_that_speaks_of_no_possible_attempt_is_left_out_alone(
    fleet: Fleet, attempt: int
) -> None:
    ids = await fleet.add(4)
    await fleet.say(ids[0], State.IDLE, running=1, target=2, attempt=attempt)
    rollout = await fleet.start()
    await fleet.tick()
    assert await fleet.states(rollout) == {"SKIPPED": ids[:1], "ASSIGNED": ids[1:]}
    assert (await fleet.rows(rollout))[ids[0]].reason == "attempts"


async def test_a_rollout_that_cannot_be_ticked_stops_no_other(
    fleet: Fleet, caplog: pytest.LogCaptureFixture
) -> None:
    (broken_one, other_one) = await fleet.add(2)
    broken = await fleet.start(selector=f"id={broken_one}", priority=5)
    other = await fleet.start(selector=f"id={other_one}")
    async with fleet.database.writing() as tx:
        await tx.connection.execute(
            update(rollouts).where(rollouts.c.id == broken).values(policy={"model": "kws"})
        )
    await fleet.tick()
    assert await fleet.states(other) == {"ASSIGNED": [other_one]}
    assert f"rollout {broken} could not be ticked" in caplog.text
