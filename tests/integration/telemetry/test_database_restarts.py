"""A PostgreSQL that ends its connections while questions and telemetry wait for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.integration.postgres import Postgres
from tests.integration.server_process import ServerProcess
from tests.integration.telemetry.senders import enrolled

pytestmark = pytest.mark.anyio


@pytest.fixture
def url(postgres: Postgres) -> Iterator[str]:
    url = postgres.create()
    yield url
    postgres.drop(url)


@pytest.fixture
def server(url: str, tmp_path: Path) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path / "server", url) as process:
        yield process


@pytest.fixture
async def database(url: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(url)
    yield connection
    await connection.close()


async def test_what_waited_is_told_to_come_again_and_then_answered(
    server: ServerProcess, database: Any
) -> None:
    enrolled(server, "hall-2")

    async def ask() -> int:
        status, _ = await asyncio.to_thread(server.call, "GET", "/v1/telemetry/coverage?since=1&until=9e8")
        return int(status)

    async with database.transaction():
        await database.execute("LOCK TABLE telemetry.part IN ACCESS EXCLUSIVE MODE")
        asked = asyncio.create_task(ask())
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        while not asked.done() and await database.fetchval(waiting) == 0:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.02)
        await database.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        assert await asked == 503
    assert await ask() == 200
