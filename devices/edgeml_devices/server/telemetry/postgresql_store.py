"""Telemetry in PostgreSQL, partitioned by the day of the window; any number of processes at once."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

import asyncpg

from edgeml_devices.server.telemetry import postgresql_points, postgresql_reading, postgresql_rolling
from edgeml_devices.server.telemetry.postgresql_schema import drop_days, make_days, make_tables
from edgeml_devices.server.telemetry.postgresql_writing import Writer
from edgeml_devices.server.telemetry.selecting import DAY_US, HOUR_US, bounds_us
from edgeml_devices.server.telemetry.store import (
    Coverage,
    HourRow,
    Incoming,
    Point,
    SampleRow,
    Selection,
    Stored,
    SystemRow,
    TotalRow,
    WindowRow,
)

_LOG: Final = logging.getLogger(__name__)
_CONNECTIONS: Final = 6
"""Of one process, at most."""
_ROLL_S: Final = 2.0


class PostgresqlStore:
    """The store in a database."""

    def __init__(self, pool: Any) -> None:
        self._pool = pool
        self._writer = Writer()
        self._kept_us = 0

    @classmethod
    async def open(cls, url: str) -> PostgresqlStore:
        """Connect, and make the tables if need be.

        Args:
            url: ``postgresql://USER:PASSWORD@HOST/NAME``.

        Raises:
            ServerError: the tables are of a newer version.
        """
        pool = await asyncpg.create_pool(url, min_size=1, max_size=_CONNECTIONS)
        store = cls(pool)
        async with pool.acquire() as connection:
            await make_tables(connection)
            await store._look_up_kept(connection)
            if await connection.fetchval("SHOW synchronous_commit") == "off":
                _LOG.warning(
                    "this database has synchronous_commit = off: if it crashes, telemetry is lost that its "
                    "devices have forgotten by then; set it on"
                )
        return store

    async def append(self, incoming: Sequence[Incoming]) -> list[Stored]:
        if not incoming:
            return []
        async with self._pool.acquire() as connection:
            return await self._writer.append(connection, incoming)

    def windows(self, selection: Selection) -> AsyncIterator[Sequence[WindowRow]]:
        return postgresql_reading.windows(self._pool, selection, self._kept_us)

    def system(self, selection: Selection) -> AsyncIterator[Sequence[SystemRow]]:
        return postgresql_reading.system(self._pool, selection, self._kept_us)

    async def hours(self, selection: Selection, *, by_device: bool) -> Sequence[HourRow]:
        return await postgresql_rolling.hours(self._pool, selection, by_device=by_device)

    async def totals(self) -> Sequence[TotalRow]:
        return await postgresql_rolling.totals(self._pool)

    async def samples(self, selection: Selection, limit: int) -> Sequence[SampleRow]:
        return await postgresql_reading.samples(self._pool, selection, limit, self._kept_us)

    async def coverage(self, selection: Selection) -> Sequence[Coverage]:
        return await postgresql_reading.coverage(self._pool, selection, self._kept_us)

    async def append_points(self, points: Sequence[Point]) -> None:
        async with self._pool.acquire() as connection:
            await postgresql_points.append(connection, points)

    async def points(self, name: str, since: float, until: float, limit: int) -> Sequence[Point]:
        bounds = bounds_us(Selection(since, until))
        async with self._pool.acquire() as connection:
            return await postgresql_points.read(connection, name, *bounds, limit)

    async def prune(self, keep_from: float, keep_hours_from: float) -> None:
        keep_us = bounds_us(Selection(keep_from, keep_from))[0]
        hour = bounds_us(Selection(keep_hours_from, keep_hours_from))[0] // HOUR_US
        while await postgresql_rolling.roll(self._pool):
            pass
        async with self._pool.acquire() as connection:
            await connection.execute(
                "INSERT INTO telemetry.kept AS k VALUES ('windows', $1) "
                "ON CONFLICT (name) DO UPDATE SET since = greatest(k.since, excluded.since)",
                keep_us,
            )
            await self._look_up_kept(connection)
            await drop_days(connection, keep_us // DAY_US)
            await postgresql_points.prune(connection, keep_us)
            await connection.execute("DELETE FROM telemetry.hour WHERE hour < $1", hour)

    async def run(self) -> None:
        """Add up hours and make the next days' partitions, until cancelled."""
        while True:
            await asyncio.sleep(_ROLL_S)
            try:
                while await postgresql_rolling.roll(self._pool):
                    pass
                today = int(time.time()) // 86400
                async with self._pool.acquire() as connection:
                    await make_days(connection, (today, today + 1))
                    await self._look_up_kept(connection)
            except Exception:  # noqa: BLE001 - the next turn tries again
                _LOG.exception("hourly sums could not be kept")

    async def _look_up_kept(self, connection: Any) -> None:
        self._kept_us = await connection.fetchval("SELECT since FROM telemetry.kept") or 0

    async def close(self) -> None:
        await self._pool.close()
