"""Waves, thresholds, soak time and late joiners, on both databases."""

from __future__ import annotations

import pytest
from edgeml_devices.messages import Result, State

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
