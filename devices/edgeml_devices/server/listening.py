"""Hears what other processes of the server changed, by PostgreSQL's LISTEN; connects again when it breaks."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from edgeml_devices.server.database import CHANNEL, Database
from edgeml_devices.server.fleet.directory import Directory

_LOG = logging.getLogger(__name__)
_CHECK_S: Final = 5.0
_AGAIN_S: Final = 1.0


async def listen(database: Database, directory: Directory) -> None:
    """Keep a directory right until cancelled."""
    while True:
        try:
            async with _connected(database) as (connection, said):
                # after LISTEN, so that no change falls between
                await directory.load()
                directory.fresh = True
                while True:
                    await directory.refresh(await _changed(database, connection, said))
        except Exception as error:  # noqa: BLE001 - whatever it is: connect again, and look at everything
            directory.fresh = False
            _LOG.warning("changes of other processes are not heard, connecting again: %s", error)
            await asyncio.sleep(_AGAIN_S)


@asynccontextmanager
async def _connected(database: Database) -> AsyncIterator[tuple[Any, asyncio.Queue[str]]]:
    said: asyncio.Queue[str] = asyncio.Queue()
    engine = create_async_engine(database.url, poolclass=NullPool)
    try:
        async with engine.connect() as pooled:
            raw = await pooled.get_raw_connection()
            connection: Any = raw.driver_connection
            connection.add_termination_listener(lambda _: said.put_nowait(""))
            await connection.add_listener(CHANNEL, lambda *notice: said.put_nowait(notice[3]))
            yield connection, said
    finally:
        await engine.dispose()


async def _changed(database: Database, connection: Any, said: asyncio.Queue[str]) -> set[str]:
    """Wait for changes of others, and see now and then that the connection still stands."""
    payloads = []
    try:
        payloads.append(await asyncio.wait_for(said.get(), _CHECK_S))
        while not said.empty():
            payloads.append(said.get_nowait())
    except TimeoutError:
        pass
    if not all(payloads):
        raise ConnectionError("the connection broke")
    if not payloads:
        await asyncio.wait_for(connection.fetchval("SELECT 1"), _CHECK_S)
    parted = [payload.partition(":") for payload in payloads]
    return {id_ for process, _, ids in parted if process != database.process for id_ in ids.split(",")}
