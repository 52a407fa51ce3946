"""The database, the same on SQLite and PostgreSQL: short reads, one kind of write, and who hears of changes.

A write that changes what a device is to be says so in ``Transaction.changed``. After the commit the process
that wrote hears it first, and on PostgreSQL all others by NOTIFY, which is part of the transaction.
"""

from __future__ import annotations

import asyncio
import secrets
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any, Final, Literal, Self, TypeVar

from sqlalchemy import event, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from edgeml.errors import ServerError
from edgeml_devices.server import audit
from edgeml_devices.server.settings import database_url
from edgeml_devices.server.transaction import Transaction

T = TypeVar("T")
CHANNEL: Final = "edgeml_changed"
"""Of PostgreSQL's NOTIFY; the payload is ``PROCESS:ID,ID,…``."""
PIECE: Final = 200
"""Ids in one NOTIFY (8,000 bytes at most) and in one statement (32,766 parameters at most)."""
_BUSY_MS: Final = 10_000
_READERS: Final = 4
_CONNECTIONS: Final = 8
"""Of one process to PostgreSQL, at most; LISTEN takes one more."""

Dialect = Literal["sqlite", "postgresql"]


class Database:
    """Connections to one database. Safe for any number of tasks of one event loop."""

    def __init__(self, url: URL) -> None:
        self.url = url
        self.dialect: Dialect = "sqlite" if url.get_backend_name() == "sqlite" else "postgresql"
        self.process = secrets.token_hex(4)
        """Who this is among the processes that hear each other."""
        self._subscribers: list[Callable[[frozenset[str]], Awaitable[None]]] = []
        if self.dialect == "sqlite":
            self._readers = _sqlite_engine(url, _READERS, "BEGIN")
            self._writer = _sqlite_engine(url, 1, "BEGIN IMMEDIATE")
        else:
            self._readers = create_async_engine(
                url, pool_size=_CONNECTIONS, max_overflow=0, pool_pre_ping=True
            )
            self._writer = self._readers
        self._turn = asyncio.Lock()

    @classmethod
    async def open(cls, url: str | URL) -> Self:
        """Open a database; its tables must be there (:func:`edgeml_devices.server.migrate.migrate`).

        Raises:
            UsageError: no address of a database that is supported.
        """
        address = database_url(url) if isinstance(url, str) else url
        if address.get_backend_name() == "sqlite":
            _use_wal(Path(address.database or ""))
        return cls(address)

    @classmethod
    async def reach(cls, url: URL) -> Self:
        """Open a database, and see that it answers: what commands of an operator begin with.

        Raises:
            ServerError: it does not answer, or does not let the user in.
        """
        database = await cls.open(url)
        if database.dialect != "postgresql":
            return database
        try:
            async with database.reading():
                return database
        except (DBAPIError, OSError) as error:
            await database.close()
            said = error.orig if isinstance(error, DBAPIError) else error
            raise ServerError(
                f"{url.render_as_string(hide_password=True)} cannot be used: {said}; "
                "is PostgreSQL running, and the address (--database, EDGEML_DATABASE) right?"
            ) from error

    async def close(self) -> None:
        """Close all connections."""
        await self._readers.dispose()
        if self._writer is not self._readers:
            await self._writer.dispose()

    def subscribe(self, hear: Callable[[frozenset[str]], Awaitable[None]]) -> None:
        """Have ``hear`` called with device ids after each commit of this process that changed some."""
        self._subscribers.append(hear)

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """Give a connection to read with; what it sees on SQLite is one moment."""
        async with self._readers.connect() as connection:
            yield connection

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[Transaction]:
        """Give a transaction: committed at the end, rolled back on any error."""
        if self.dialect == "postgresql":
            async with self._writer.begin() as connection:
                transaction = Transaction(connection)
                yield transaction
                await _append_audit(transaction)
                await self._announce(transaction)
        else:
            async with self._turn, self._writer.begin() as connection:
                transaction = Transaction(connection)
                yield transaction
                await _append_audit(transaction)
        if transaction.changed:
            for hear in self._subscribers:
                await hear(frozenset(transaction.changed))

    async def _announce(self, transaction: Transaction) -> None:
        for ids in pieces(sorted(transaction.changed)):
            await transaction.connection.execute(
                text("SELECT pg_notify(:channel, :payload)"),
                {"channel": CHANNEL, "payload": f"{self.process}:{','.join(ids)}"},
            )


async def _append_audit(transaction: Transaction) -> None:
    if transaction.entries:
        await audit.append(transaction.connection, transaction.entries, time.time())


def pieces(values: Iterable[T], size: int = PIECE) -> Iterator[Sequence[T]]:
    """Cut into lists of at most ``size``: ids for one statement."""
    whole = list(values)
    for start in range(0, len(whole), size):
        yield whole[start : start + size]


def _use_wal(file: Path) -> None:
    """Let readers and the writer not wait for each other; the file stays so."""
    deadline = time.monotonic() + _BUSY_MS / 1000
    with closing(sqlite3.connect(file)) as connection:
        while True:
            try:
                connection.execute("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError:
                # two that do it at once get no busy timeout
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
            else:
                return


def _sqlite_engine(url: URL, connections: int, begin: str) -> AsyncEngine:
    engine = create_async_engine(
        url, pool_size=connections, max_overflow=0, connect_args={"timeout": _BUSY_MS / 1000}
    )

    @event.listens_for(engine.sync_engine, "connect")
    def _connect(connection: Any, _: object) -> None:
        # the driver must not begin transactions of its own
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in (
            f"busy_timeout = {_BUSY_MS}",
            "synchronous = FULL",  # an accepted report is forgotten by its device
            "foreign_keys = ON",
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def _begin(connection: Any) -> None:
        connection.exec_driver_sql(begin)

    return engine
