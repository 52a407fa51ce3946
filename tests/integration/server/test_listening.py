"""Several processes on one PostgreSQL: each hears of the others' changes, also after its connection broke."""

from __future__ import annotations

import asyncio
import time

import httpx2
import pytest
from edgeml_devices.server.app import create_app
from edgeml_devices.server.database import Database
from edgeml_devices.server.fleet import desired
from edgeml_devices.server.settings import ServerSettings
from sqlalchemy import text

from tests.integration.server.devices import enrol

pytestmark = pytest.mark.anyio


@pytest.fixture
def database_url(postgres, postgres_template):
    url = postgres.create(postgres_template)
    yield url
    postgres.drop(url)


@pytest.fixture
async def other(database_url: str):
    """The database as another process has it."""
    database = await Database.open(database_url)
    yield database
    await database.close()


async def _assign(database: Database, ids: list[str], release: int) -> None:
    async with database.writing() as tx:
        await desired.assign(tx, ids, "kws", release=release, now=time.time())


async def test_a_change_of_another_process_wakes_a_poll(client, other) -> None:
    device = await enrol(client)
    poll = asyncio.create_task(device.poll(0, wait=50))
    await asyncio.sleep(0.1)
    begun = time.monotonic()
    await _assign(other, [device.id], 1)
    assert (await poll).json()["models"] == {"kws": {"release": 1}}
    assert time.monotonic() - begun < 20


async def test_changes_of_many_devices_fit_into_notices(client, other) -> None:
    devices = [await enrol(client) for _ in range(5)]
    ids = [device.id for device in devices] + [f"{number:016x}" for number in range(1000)]
    polls = [asyncio.create_task(device.poll(0, wait=50)) for device in devices]
    await asyncio.sleep(0.1)
    async with other.writing() as tx:
        tx.changed.update(ids)
        await desired.assign(tx, ids, "kws", release=1, now=time.time())
    assert [(await poll).status_code for poll in polls] == [200] * 5


async def test_a_device_enrolled_at_another_process_is_known_at_once(
    client, services, other, tmp_path
) -> None:
    app = create_app(
        ServerSettings(tmp_path / "second", services.database.url.render_as_string(hide_password=False))
    )
    async with (
        app.router.lifespan_context(app),
        httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://s") as second,
    ):
        device = await enrol(client)
        device.client = second
        assert (await device.poll()).status_code == 200
        await client.post(f"/v1/devices/{device.id}/retire")
        deadline = time.monotonic() + 60
        while (await device.poll()).status_code != 401:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)


async def test_after_its_connection_broke_a_process_looks_at_everything(client, services, other) -> None:
    device = await enrol(client)
    poll = asyncio.create_task(device.poll(0, wait=50))
    await asyncio.sleep(0.1)
    async with other.writing() as tx:
        # of this process all but the ones asking, the one that listens as well
        await tx.connection.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        )
    await _assign(other, [device.id], 1)
    assert (await asyncio.wait_for(poll, 60)).status_code == 200
    assert (await client.get("/v1/server")).status_code == 200
    deadline = time.monotonic() + 60
    while not services.directory.fresh:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
    poll = asyncio.create_task(device.poll(1, wait=50))
    await asyncio.sleep(0.1)
    await _assign(other, [device.id], 2)
    assert (await asyncio.wait_for(poll, 60)).json()["models"] == {"kws": {"release": 2}}


async def test_a_server_ends_although_work_beside_it_missed_that_it_is_to_end(
    server_settings: ServerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, heard = asyncio.Event(), asyncio.Queue[None]()

    async def hear_for_ever() -> None:
        begun.set()
        while True:
            # in Python 3.11 a message that comes in the same moment takes the place of the cancellation
            await asyncio.wait_for(heard.get(), 60)

    monkeypatch.setattr("edgeml_devices.server.app._beside", lambda _: iter([hear_for_ever()]))
    app = create_app(server_settings)
    async with asyncio.timeout(50):
        async with app.router.lifespan_context(app):
            await begun.wait()
            heard.put_nowait(None)
