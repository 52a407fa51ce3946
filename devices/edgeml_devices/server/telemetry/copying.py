"""Copies of telemetry in a back-up, made while it is written; restored to a database of the same kind only.

A stream's state is in the same copy as its reports. So a server that goes on with a copy stores what devices
send after it, shows what they sent in between as missing, and counts nothing twice.
"""

from __future__ import annotations

import io
import os
import sqlite3
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import IO, Any, Final

from edgeml.errors import UsageError
from edgeml_devices.server.settings import ServerSettings
from edgeml_devices.server.telemetry import day_files, sqlite_points
from edgeml_devices.server.telemetry.postgresql_schema import days_of, make_days, make_tables

FILES: Final = "telemetry-sqlite"
TABLES: Final = "telemetry-postgresql"
_TABLES: Final = (
    "stream",
    "boot",
    "series",
    "name",
    "part",
    "unrolled",
    "hour",
    "total",
    "point",
    "kept",
)
_NUMBERED: Final = ("stream", "boot", "series", "name")
"""Their ``id`` goes on where it ended."""
_DAYS: Final = "days"


def copy_files(settings: ServerSettings, take: Callable[[str, IO[bytes]], None]) -> None:
    """Have each file of the SQLite store taken, by name and content."""
    folder = settings.telemetry
    # sums first: what they do not hold yet is then in the days' files, and is added later
    days = [f"{day}.db" for day in day_files.days_of(folder)]
    for name in (day_files.CATALOGUE, *days, sqlite_points.FILE):
        try:
            source = day_files.connect_reader(folder / name)
        except sqlite3.OperationalError:
            # none, or pruned a moment ago
            continue
        # beside the data: the system's temporary folder may be memory
        with closing(source), tempfile.TemporaryDirectory(prefix="back-up-", dir=settings.data) as scratch:
            copy = Path(scratch) / name
            with closing(sqlite3.connect(copy)) as target:
                source.backup(target)
            with copy.open("rb") as content:
                take(name, content)


def restore_file(settings: ServerSettings, name: str, content: IO[bytes]) -> None:
    """Write one of the SQLite store's files."""
    settings.telemetry.mkdir(mode=0o700, exist_ok=True)
    with (settings.telemetry / Path(name).name).open("xb") as file:
        while chunk := content.read(1 << 20):
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())


async def copy_tables(settings: ServerSettings, take: Callable[[str, IO[bytes]], None]) -> None:
    """Have each table of PostgreSQL taken, by name and content; all are of one moment."""
    connection = await _connect(settings)
    try:
        if await connection.fetchval("SELECT to_regclass('telemetry.version')") is None:
            return
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            days = ",".join(map(str, await days_of(connection)))
            take(_DAYS, io.BytesIO(days.encode()))
            for table in _TABLES:
                with tempfile.TemporaryFile() as rows:
                    query = f"SELECT * FROM telemetry.{table}"  # noqa: S608 - one of ours
                    await connection.copy_from_query(query, output=rows, format="binary")
                    take(table, rows)
    finally:
        await connection.close()


class TableFiller:
    """Fills the tables of PostgreSQL in one transaction; without :meth:`commit` nothing is there."""

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings
        self._connection: Any = None
        self._transaction: Any = None

    async def fill(self, name: str, content: IO[bytes]) -> None:
        """Fill one table.

        Raises:
            UsageError: there is telemetry already.
        """
        if self._connection is None:
            self._connection = await _connect(self._settings)
            self._transaction = self._connection.transaction()
            await self._transaction.start()
            await make_tables(self._connection)
            if await self._connection.fetchval("SELECT count(*) FROM telemetry.stream"):
                raise UsageError("the database holds telemetry; restore to an empty one (--database)")
        connection = self._connection
        if name == _DAYS:
            await make_days(connection, [int(day) for day in content.read().split(b",") if day])
            return
        if name not in _TABLES:
            raise ValueError(f"{name} is no table of telemetry")
        await connection.copy_to_table(name, schema_name="telemetry", source=content, format="binary")
        if name in _NUMBERED:
            await connection.execute(
                f"SELECT setval(pg_get_serial_sequence('telemetry.{name}', 'id'), "  # noqa: S608 - as above
                f"coalesce(max(id), 0) + 1, false) FROM telemetry.{name}"
            )

    async def commit(self) -> None:
        """Keep what was filled in."""
        if self._transaction is not None:
            await self._transaction.commit()

    async def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            await self._connection.close()


async def _connect(settings: ServerSettings) -> Any:
    import asyncpg

    return await asyncpg.connect(
        settings.url.set(drivername="postgresql").render_as_string(hide_password=False)
    )
