"""Hears what other processes of the server changed, by PostgreSQL's LISTEN; connects again when it breaks."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import asyncpg  # type: ignore[import-untyped]
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from edgeml_devices.server.database import CHANNEL, Database
from edgeml_devices.server.directory import Directory

_LOG = logging.getLogger(__name__)
_CHECK_S: Final = 5.0
_AGAIN_S: Final = 1.0


async def listen(database: Database, directory: Directory) -> None:
    """Keep a directory right until cancelled."""
    while True:
        try:
            async with _connected(database) as (connection, changed):
                # after LISTEN, so that no change falls between
                await directory.load()
                directory.fresh = True
                while True:
                    ids = await _next(connection, changed)
                    await directory.refresh(ids)
        except (
            OSError,
            SQLAlchemyError,
            TimeoutError,
            asyncpg.PostgresError,
            asyncpg.InterfaceError,
        ) as error:
            directory.fresh = False
            _LOG.warning("changes of other processes are not heard, connecting again: %s", error)
            await asyncio.sleep(_AGAIN_S)


@asynccontextmanager
async def _connected(database: Database) -> AsyncIterator[tuple[Any, asyncio.Queue[str]]]:
    changed: asyncio.Queue[str] = asyncio.Queue()
    engine = create_async_engine(database.url, poolclass=NullPool)
    try:
        async with engine.connect() as pooled:
            raw = await pooled.get_raw_connection()
            connection: Any = raw.driver_connection
            await connection.add_listener(CHANNEL, lambda *said: changed.put_nowait(said[3]))
            yield connection, changed
    finally:
        await engine.dispose()


async def _next(connection: Any, changed: asyncio.Queue[str]) -> set[str]:
    """Wait for changes, and see now and then that the connection still stands."""
    while True:
        try:
            first = await asyncio.wait_for(changed.get(), _CHECK_S)
        except TimeoutError:
            await asyncio.wait_for(connection.fetchval("SELECT 1"), _CHECK_S)
            continue
        payloads = [first]
        while not changed.empty():
            payloads.append(changed.get_nowait())
        return set().union(*(payload.partition(":")[2].split(",") for payload in payloads))
