"""A fleet on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from edgeml_devices.server.database import Database
from edgeml_devices.server.migrate import migrate

from tests.integration.rollouts.fleet import Fleet


@pytest.fixture
async def fleet(database_url: str) -> AsyncIterator[Fleet]:
    database = await Database.open(database_url)
    await migrate(database)
    fleet = Fleet(database)
    await fleet.publish(1, 2, 3)
    yield fleet
    await database.close()
