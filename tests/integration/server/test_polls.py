"""The long-poll: answered at a change, or after its time."""

from __future__ import annotations

import asyncio
import time

import pytest
from edgeml_devices.server import tables
from edgeml_devices.server.app import create_app
from edgeml_devices.server.fleet import desired
from edgeml_devices.server.settings import Limits, ServerSettings
from sqlalchemy import insert

from tests.integration.server.devices import enrol, refusals

pytestmark = pytest.mark.anyio


async def _assign(services, device, release: int | None = 1, **options) -> None:
    async with services.database.writing() as tx:
        await desired.assign(tx, [device.id], "kws", release=release, now=time.time(), **options)


async def test_a_new_device_is_told_its_empty_desired_state(client) -> None:
    answer = await (await enrol(client)).poll()
    assert (answer.status_code, answer.headers["ETag"], answer.json()) == (200, '"0"', {"generation": 0})


async def test_a_poll_waits_for_a_change_and_comes_back_with_it(client, services) -> None:
    device = await enrol(client)
    poll = asyncio.create_task(device.poll(0, wait=30))
    await asyncio.sleep(0.1)
    assert not poll.done()
    begun = time.monotonic()
    await _assign(services, device, 3, attempt=2, hold=True, rollout_id="r1")
    answer = await poll
    assert time.monotonic() - begun < 15
    assert answer.headers["ETag"] == '"1"'
    assert answer.json()["models"] == {"kws": {"release": 3, "attempt": 2, "hold": True, "rollout": "r1"}}


async def test_a_poll_without_a_change_ends_after_its_time_with_304(client) -> None:
    device = await enrol(client)
    begun = time.monotonic()
    answer = await device.poll(0, wait=0.4)
    assert (answer.status_code, answer.content) == (304, b"")
    assert 0.3 < time.monotonic() - begun < 15


async def test_a_poll_of_another_generation_is_answered_at_once(client, services) -> None:
    device = await enrol(client)
    await _assign(services, device)
    assert (await asyncio.wait_for(device.poll(0, wait=50), 30)).status_code == 200
    assert (await device.poll(1)).status_code == 304


async def test_a_change_for_one_device_does_not_wake_another(client, services) -> None:
    one, other = await enrol(client), await enrol(client)
    poll = asyncio.create_task(other.poll(0, wait=0.6))
    await asyncio.sleep(0.05)
    await _assign(services, one)
    assert (await poll).status_code == 304


async def test_a_removed_assignment_is_told_too(client, services) -> None:
    device = await enrol(client)
    await _assign(services, device)
    async with services.database.writing() as tx:
        await desired.unassign(tx, [device.id], "kws")
    assert (await device.poll(1)).json() == {"generation": 2}
    await _assign(services, device, None)
    assert (await device.poll(2)).json() == {"generation": 3, "models": {"kws": {"release": None}}}


async def test_a_window_that_closes_is_told_as_time_left_and_then_as_hold(client, services) -> None:
    device = await enrol(client)
    await _assign(services, device, open_until=time.time() + 100)
    told = (await device.poll()).json()["models"]["kws"]
    assert 90 < told["open_for_s"] <= 100
    assert "hold" not in told
    await _assign(services, device, open_until=time.time() - 1)
    assert (await device.poll()).json()["models"]["kws"] == {"release": 1, "hold": True, "open_for_s": 0.0}


async def test_retiring_a_device_ends_its_poll(client) -> None:
    device = await enrol(client)
    poll = asyncio.create_task(device.poll(0, wait=30))
    await asyncio.sleep(0.05)
    await client.post(f"/v1/devices/{device.id}/retire")
    assert (await asyncio.wait_for(poll, 20)).status_code == 401


async def test_clones_of_a_device_are_told_to_come_back_later(client, services) -> None:
    device = await enrol(client)
    most = services.settings.limits.polls_per_device
    first, *others = [asyncio.create_task(device.poll(0, wait=50)) for _ in range(most + 1)]
    turned_away = await asyncio.wait_for(first, 40)
    assert turned_away.status_code == 429
    assert int(turned_away.headers["Retry-After"]) >= 10
    assert not any(poll.done() for poll in others)
    await client.post(f"/v1/devices/{device.id}/retire")
    assert [answer.status_code for answer in await asyncio.gather(*others)] == [401] * most
    assert services.directory.waiting == 0


async def test_too_many_polls_are_turned_away_with_a_time_to_come_back(tmp_path, database_url: str) -> None:
    import httpx2

    limits = Limits(waiting_polls=0)
    app = create_app(ServerSettings(tmp_path / "server", database_url, limits=limits))
    async with app.router.lifespan_context(app):
        async with app.state.services.database.writing() as tx:
            row = {
                "id": "a",
                "name": "a",
                "token_sha256": _sha256("t" * 43),
                "labels": {},
                "enrolled_at": 0.0,
            }
            await tx.connection.execute(insert(tables.devices).values(row))
            tx.changed.add("a")
        headers = {"Authorization": "Bearer " + "t" * 43, "If-None-Match": '"0"'}
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://s") as client:
            answer = await client.get("/v1/agent/state?wait=5", headers=headers)
    assert answer.status_code == 503
    assert answer.headers["Retry-After"]


async def test_a_wait_that_is_no_time_is_refused(client) -> None:
    device = await enrol(client)
    for wait in ("-1", "nan", "inf", "soon"):
        answer = await client.get("/v1/agent/state", params={"wait": wait}, headers=device.headers)
        assert answer.status_code == 400, wait


async def test_strangers_and_operators_have_no_desired_state(client) -> None:
    assert (
        await client.get("/v1/agent/state", headers={"Authorization": "Bearer nobody"})
    ).status_code == 401
    assert (await client.get("/v1/agent/state")).status_code == 403
    assert [row["actor"].partition(":")[0] for row in await refusals(client)] == ["anonymous", "admin"]


async def test_when_a_device_was_last_seen_is_written_now_and_then(client, services) -> None:
    device = await enrol(client)
    before = (await client.get(f"/v1/devices/{device.id}")).json()["last_seen"]
    await asyncio.sleep(0.02)
    await device.poll()
    await services.directory.flush_seen()
    assert (await client.get(f"/v1/devices/{device.id}")).json()["last_seen"] > before


def _sha256(token: str) -> str:
    import hashlib

    return hashlib.sha256(token.encode()).hexdigest()
