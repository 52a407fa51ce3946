from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from edgeml_devices.server.settings import ServerSettings
from edgeml_devices.server.telemetry.opening import open_store

if TYPE_CHECKING:
    from edgeml_devices.server.telemetry.store import TelemetryStore

    from tests.integration.postgres import Postgres
    from tests.integration.server_process import ServerProcess


@pytest.fixture
async def stores(tmp_path: Path, postgres: Postgres) -> AsyncIterator[list[TelemetryStore]]:
    """One of each kind, empty."""
    url = postgres.create()
    async with AsyncExitStack() as stack:
        opened = []
        for settings in (ServerSettings(tmp_path), ServerSettings(tmp_path, url)):
            opened.append(await open_store(settings))
            stack.push_async_callback(opened[-1].close)
        yield opened
    postgres.drop(url)


@pytest.fixture
async def store(server_settings: ServerSettings) -> AsyncIterator[TelemetryStore]:
    """An empty store: tests that take it run on both kinds."""
    store = await open_store(server_settings)
    yield store
    await store.close()


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    """A server process that devices have reported to, on either database; tests only read from it."""
    from tests.integration.server_process import ServerProcess
    from tests.integration.telemetry.served import tell

    folder = tmp_path_factory.mktemp("served")
    url = f"sqlite:///{folder / 'test.db'}"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres").create(request.getfixturevalue("postgres_template"))
    with ServerProcess(folder / "server", url) as server:
        asyncio.run(tell(server))
        yield server
    if request.param == "postgresql":
        request.getfixturevalue("postgres").drop(url)
