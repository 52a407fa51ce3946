"""Several tickers on one database at the same moment, as several server processes have."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from edgeml_devices.server.database import Database
from edgeml_devices.server.rollouts.service import Ticker

from tests.integration.rollouts.fleet import Fleet, manifest_of

pytestmark = pytest.mark.anyio


async def test_tickers_that_meet_assign_each_device_once_and_begin_each_wave_once(
    fleet: Fleet, database_url: str
) -> None:
    await fleet.add(60)
    rollout = await fleet.start(waves=[{"percent": 20}, {"percent": 60}, {"percent": 100}], max_concurrent=9)
    databases = [await Database.open(database_url) for _ in range(4)]
    tickers = [Ticker(one, manifest_of, lambda: fleet.now) for one in databases]
    for _ in range(40):
        fleet.now += 1
        await asyncio.gather(*(ticker.tick(rollout) for ticker in tickers))
        under_way = (await fleet.states(rollout)).get("ASSIGNED", [])
        assert len(under_way) <= 9
        await fleet.commit(*under_way)
        if await fleet.state(rollout) == "FINISHED":
            break
    for database in databases:
        await database.close()
    assert await fleet.state(rollout) == "FINISHED"
    assert [row.detail["wave"] for row in await fleet.log("rollout.wave")] == [1, 2, 3]
    for action in ("rollout.assign", "rollout.outcome"):
        named = Counter(one for row in await fleet.log(action) for one in row.detail["devices"])
        assert set(named.values()) == {1}, action
        assert len(named) == 60
    assert {row.attempt for row in (await fleet.rows(rollout)).values()} == {1}


async def test_tickers_that_meet_keep_the_budget_of_a_site_over_their_rollouts(
    fleet: Fleet, database_url: str
) -> None:
    ids = await fleet.add(24, labels={"site": "a"})
    shares = [ids[place::4] for place in range(4)]
    budget = {"group_by": "site", "max_unavailable": 3}
    rollouts = [await fleet.start(selector=f"id in ({','.join(some)})", budget=budget) for some in shares]
    databases = [await Database.open(database_url) for _ in rollouts]
    tickers = [Ticker(one, manifest_of, lambda: fleet.now) for one in databases]
    for _ in range(60):
        fleet.now += 1
        await asyncio.gather(
            *(ticker.tick(rollout) for ticker, rollout in zip(tickers, rollouts, strict=True))
        )
        under_way = [one for each in rollouts for one in (await fleet.states(each)).get("ASSIGNED", [])]
        assert len(under_way) <= 3
        await fleet.commit(*under_way)
        if {await fleet.state(each) for each in rollouts} == {"FINISHED"}:
            break
    for database in databases:
        await database.close()
    assert [await fleet.state(one) for one in rollouts] == ["FINISHED"] * 4
