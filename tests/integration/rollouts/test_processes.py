"""Three server processes on PostgreSQL, killed at random: no wave twice, each device exactly one outcome."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx2
import pytest
from edgeml_devices.messages import Result
from edgeml_devices.server.database import Database

from tests.integration.postgres import Postgres
from tests.integration.rollouts.agents import HttpDevice
from tests.integration.rollouts.publishing import publish
from tests.integration.server_process import ServerProcess

pytestmark = pytest.mark.anyio


def fails_now_and_then(name: str, release: int, attempt: int) -> Result:
    chance = random.Random(f"{name} {release} {attempt}")  # noqa: S311 - chance, no secret
    return Result.FAILED_ROLLBACK_COMPLETE if chance.random() < 0.1 else Result.SUCCESSFUL


def chance_of(place: int) -> random.Random:
    return random.Random(place)  # noqa: S311 - as above


async def kill_at_random(servers: list[ServerProcess], chance: random.Random, ends: asyncio.Event) -> int:
    """Kill one server after another, and start it again, until ``ends``."""
    number = 0
    while not ends.is_set():
        await asyncio.sleep(chance.uniform(0.1, 1.0))
        server = chance.choice(servers)
        server.kill()
        number += 1
        await asyncio.to_thread(server.start)
    return number


async def audit_log(call: Any) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    page: dict[str, Any] = {"next": 0}
    while page["next"] is not None:
        page = await call("GET", f"/v1/audit?limit=1000&after={page['next']}")
        rows += page["audit"]
    return rows


@pytest.mark.parametrize(
    ("seed", "count", "at_once"),
    [
        (7, 40, 6),
        pytest.param(7, 200, 40, marks=pytest.mark.soak),
        pytest.param(20261125, 200, 40, marks=pytest.mark.soak),
    ],
)
async def test_servers_that_are_killed_lose_nothing_and_do_nothing_twice(
    seed: int, count: int, at_once: int, postgres: Postgres, tmp_path: Path
) -> None:
    url = postgres.create()
    data = tmp_path / "server"
    chance = random.Random(seed)  # noqa: S311 - as above
    servers = [ServerProcess(data, url) for _ in range(3)]
    tasks: list[asyncio.Task[None]] = []
    database = await Database.open(url)
    try:
        for server in servers:
            await asyncio.to_thread(server.start)
        admin = servers[0].admin_token
        await publish(database, data, 1, 2)
        async with httpx2.AsyncClient(timeout=60, limits=httpx2.Limits(max_connections=None)) as client:
            boss = HttpDevice("", lambda: [one.url for one in servers], client, chance=chance, token=admin)

            async def call(method: str, path: str, body: Any = None) -> Any:
                answer = await boss.call(method, path, json=body)
                assert answer.is_success, answer.text
                return answer.json()

            join = (await call("POST", "/v1/join-tokens", {"uses": count}))["token"]
            devices = [
                HttpDevice(f"d{place}", boss.servers, client, fails_now_and_then, chance_of(place), takes_s=3)
                for place in range(count)
            ]
            await asyncio.gather(*(one.enrol(join) for one in devices))
            tasks = [asyncio.create_task(one.live()) for one in devices]
            rules = {
                "model": "kws",
                "release": 2,
                "selector": "",
                "waves": [{"percent": 15}, {"percent": 40}, {"percent": 100}],
                "success_threshold": 0.3,
                "max_failed_share": 0.9,  # by chance a tenth fails: that alone must not end it
                "max_concurrent": at_once,
            }
            rollout = (await call("POST", "/v1/rollouts", rules))["id"]
            await call("POST", f"/v1/rollouts/{rollout}/start")
            ends = asyncio.Event()
            killing = asyncio.create_task(kill_at_random(servers, chance, ends))
            deadline = time.monotonic() + 400
            found = await call("GET", f"/v1/rollouts/{rollout}")
            while found["state"] == "RUNNING":
                assert time.monotonic() < deadline, found
                await asyncio.sleep(0.3)
                found = await call("GET", f"/v1/rollouts/{rollout}")
            ends.set()
            kills = await killing
            log = [row for row in await audit_log(call) if row["object"] == rollout]
            rows = (await call("GET", f"/v1/rollouts/{rollout}/devices?limit=1000"))["devices"]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for server in servers:
            server.kill()
        await database.close()
        postgres.drop(url)
    assert found["state"] == "FINISHED", found["reason"]
    assert kills >= 3
    waves = [row["detail"]["wave"] for row in log if row["action"] == "rollout.wave"]
    assert waves == [1, 2, 3]
    did = {one.id: one.done for one in devices}
    assert all(len(done) == 1 for done in did.values()), "nobody was told twice"
    for row in rows:
        ((_, _, result),) = did[row["device"]]
        assert row["state"] == ("SUCCEEDED" if result is Result.SUCCESSFUL else "FAILED")
    check_log(log, {row["device"] for row in rows}, at_once)


def check_log(log: list[dict[str, Any]], ids: set[str], at_once: int) -> None:
    """Replay the audit log: each device assigned once, ended once, and never too many under way."""
    assigned: Counter[str] = Counter()
    ended: Counter[str] = Counter()
    for row in log:
        if row["action"] == "rollout.assign":
            assigned.update(row["detail"]["devices"])
        elif row["action"] == "rollout.outcome":
            ended.update(row["detail"]["devices"])
        assert assigned.total() - ended.total() <= at_once
    assert assigned == Counter(dict.fromkeys(ids, 1))
    assert ended == assigned
