"""The tables of the PostgreSQL store, in a schema of their own; rows have their device, to be sharded by."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Final

from edgeml.errors import ServerError
from edgeml_devices.server.telemetry.selecting import DAY_US

SCHEMA: Final = 1
_LOCK: Final = 0x65646765_74656C65
"""Advisory lock of whoever changes tables ("edgetele")."""

_TABLES: Final = """
CREATE SCHEMA IF NOT EXISTS telemetry;
CREATE TABLE telemetry.version (version integer NOT NULL);
CREATE TABLE telemetry.stream (device_id text COLLATE "C" NOT NULL, epoch text COLLATE "C" NOT NULL,
    id serial, state bytea NOT NULL, PRIMARY KEY (device_id, epoch));
CREATE TABLE telemetry.boot (device_id text COLLATE "C" NOT NULL, boot_id text NOT NULL, target text NOT NULL,
    id serial, PRIMARY KEY (device_id, boot_id, target));
CREATE TABLE telemetry.series (model text NOT NULL, release bigint NOT NULL, variant text NOT NULL,
    runtime text NOT NULL, reference text NOT NULL, id serial,
    PRIMARY KEY (model, release, variant, runtime, reference));
CREATE TABLE telemetry.name (text text PRIMARY KEY, id serial);
CREATE TABLE telemetry.part (at bigint NOT NULL, last bigint NOT NULL, duration bigint NOT NULL,
    stream integer NOT NULL, boot integer NOT NULL, series integer, place smallint NOT NULL,
    device_id text COLLATE "C" NOT NULL, first bigint, link bigint, windows bigint, report_calls bigint,
    merged bigint, evicted bigint, damaged bigint, overwritten bigint, calls bigint, errors bigint,
    total bytea, body bytea, samples bytea, system bytea,
    PRIMARY KEY (device_id, at, stream, last, place)) PARTITION BY RANGE (at);
CREATE INDEX part_at ON telemetry.part USING brin (at) WITH (pages_per_range = 32);
CREATE TABLE telemetry.unrolled (device_id text COLLATE "C" NOT NULL, at bigint NOT NULL,
    series integer NOT NULL, target text NOT NULL, calls bigint NOT NULL, errors bigint NOT NULL,
    total bytea);
CREATE TABLE telemetry.hour (device_id text COLLATE "C" NOT NULL, hour integer NOT NULL, model text NOT NULL,
    release bigint NOT NULL, variant text NOT NULL, target text NOT NULL, calls numeric NOT NULL,
    errors numeric NOT NULL, latency bytea NOT NULL,
    PRIMARY KEY (device_id, hour, model, release, variant, target));
CREATE INDEX hour_hour ON telemetry.hour (hour);
CREATE TABLE telemetry.total (model text NOT NULL, release bigint NOT NULL, variant text NOT NULL,
    target text NOT NULL, calls numeric NOT NULL, errors numeric NOT NULL, latency bytea NOT NULL,
    last bigint NOT NULL, PRIMARY KEY (model, release, variant, target));
CREATE TABLE telemetry.point (at bigint NOT NULL, device_id text COLLATE "C" NOT NULL, name text NOT NULL,
    unit text NOT NULL, kind text NOT NULL, temporality text NOT NULL, attributes text COLLATE "C" NOT NULL,
    value double precision NOT NULL, buckets text NOT NULL);
CREATE INDEX point_at ON telemetry.point (name, at);
CREATE TABLE telemetry.kept (name text PRIMARY KEY, since bigint NOT NULL);
"""
"""``part`` has a row for each model in a window, and one without ``series`` for a window without models. The
first, ``place`` 0, has what is of the whole report; NULL there is none, and in ``first`` it is ``last``.
``device_id`` '' of ``hour`` is the whole fleet; ``unrolled`` is what it does not hold yet."""


async def make_tables(connection: Any) -> None:
    """Make the tables, once, whichever process comes first.

    Raises:
        ServerError: they are of a newer version.
    """
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
        if await connection.fetchval("SELECT to_regclass('telemetry.version')") is None:
            await connection.execute(_TABLES)
            await connection.execute("INSERT INTO telemetry.version VALUES ($1)", SCHEMA)
        elif await connection.fetchval("SELECT version FROM telemetry.version") > SCHEMA:
            raise ServerError("this telemetry is of a newer version of edgeml; use that version")


async def make_days(connection: Any, days: Iterable[int]) -> None:
    """Make partitions of days (since 1970) that lack one; readers and writers of others go on."""
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
        there = await days_of(connection)
        for day in sorted(set(days) - set(there)):
            name = _partition(day)
            await connection.execute(
                f"CREATE TABLE telemetry.{name} (LIKE telemetry.part INCLUDING CONSTRAINTS);"
                f"ALTER TABLE telemetry.part ATTACH PARTITION telemetry.{name} "
                f"FOR VALUES FROM ({day * DAY_US}) TO ({(day + 1) * DAY_US})"
            )


async def days_of(connection: Any) -> list[int]:
    """Give the days that have a partition, the oldest first."""
    rows = await connection.fetch(
        "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid "
        "WHERE i.inhparent = 'telemetry.part'::regclass"
    )
    return sorted(_day(row[0]) for row in rows)


async def drop_days(connection: Any, before: int) -> None:
    """Drop the partitions of days before one."""
    for day in await days_of(connection):
        if day < before:
            await connection.execute(f"DROP TABLE telemetry.{_partition(day)}")


def _partition(day: int) -> str:
    return f"part_{datetime.fromtimestamp(day * 86400, UTC):%Y%m%d}"


def _day(name: str) -> int:
    midnight = datetime.strptime(name.removeprefix("part_"), "%Y%m%d").replace(tzinfo=UTC)
    return int(midnight.timestamp()) // 86400
