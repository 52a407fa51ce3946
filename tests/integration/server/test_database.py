"""The database on both dialects: migrations, transactions, the audit log."""

from __future__ import annotations

import asyncio

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from edgeml_devices import audit_chain
from edgeml_devices.server import audit, tables
from edgeml_devices.server.database import Database
from edgeml_devices.server.fleet import desired
from edgeml_devices.server.migrate import migrate
from edgeml_devices.server.rollouts import tables as rollout_tables
from sqlalchemy import Connection, delete, insert, select, update
from sqlalchemy.exc import DBAPIError

from edgeml.errors import ServerError

pytestmark = pytest.mark.anyio


@pytest.fixture
async def database(empty_database_url: str):
    database = await Database.open(empty_database_url)
    await migrate(database)
    yield database
    await database.close()


async def test_migrations_make_exactly_the_tables_that_the_code_uses(database: Database) -> None:
    def differences(connection: Connection) -> list[object]:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return list(compare_metadata(context, rollout_tables.METADATA))

    async with database.reading() as connection:
        assert await connection.run_sync(differences) == []


async def test_processes_that_migrate_at_once_do_it_once(empty_database_url: str) -> None:
    databases = [await Database.open(empty_database_url) for _ in range(4)]
    steps = await asyncio.gather(*(migrate(one) for one in databases))
    for one in databases:
        await one.close()
    assert sorted(before is None for before, _ in steps) == [False, False, False, True]


async def test_a_database_of_a_newer_version_is_left_alone(database: Database) -> None:
    async with database.writing() as tx:
        await tx.connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(ServerError, match="9999"):
        await migrate(database)


@pytest.mark.parametrize("change", [update(tables.audit).values(actor="x"), delete(tables.audit)])
async def test_rows_of_the_audit_log_cannot_be_changed(database: Database, change) -> None:
    async with database.writing() as tx:
        await audit.record(tx, "server", "test", "one")
    with pytest.raises(DBAPIError, match="only added"):
        async with database.writing() as tx:
            await tx.connection.execute(change)


async def test_the_audit_log_is_one_chain_also_when_many_write(database: Database) -> None:
    async def write(number: int) -> None:
        async with database.writing() as tx:
            await audit.record(tx, f"admin:{number}", "test", number, {"text": "ü", "number": 0.5})
            await audit.record(tx, f"admin:{number}", "again", number)

    await asyncio.gather(*map(write, range(20)))
    async with database.reading() as connection:
        rows = (await connection.execute(select(tables.audit).order_by(tables.audit.c.id))).mappings().all()
        head = await audit.head(connection)
    assert [row["id"] for row in rows] == list(range(1, 41))
    previous = audit_chain.START
    for row in rows:
        assert row["previous_sha256"] == previous
        previous = audit_chain.row_sha256(previous, row)
        assert row["sha256"] == previous
    assert head.sha256 == previous


async def test_a_transaction_that_fails_leaves_nothing(database: Database) -> None:
    async def fail() -> None:
        async with database.writing() as tx:
            await _add_device(tx.connection, "a")
            await audit.record(tx, "server", "test", "a")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await fail()
    async with database.reading() as connection:
        assert (await connection.execute(select(tables.devices.c.id))).all() == []
        assert (await audit.head(connection)).id == 0


async def test_assigning_raises_the_generation_of_each_device_and_tells(database: Database) -> None:
    heard: list[frozenset[str]] = []

    async def hear(ids: frozenset[str]) -> None:
        heard.append(ids)

    database.subscribe(hear)
    async with database.writing() as tx:
        for id_ in ("a", "b", "c"):
            await _add_device(tx.connection, id_)
        await tx.connection.execute(
            update(tables.devices).where(tables.devices.c.id == "c").values(retired_at=1.0)
        )
    async with database.writing() as tx:
        await desired.assign(tx, ["a", "b", "c", "unknown"], "kws", release=1, now=1.0)
    async with database.writing() as tx:
        await desired.assign(tx, ["a"], "kws", release=2, attempt=3, hold=True, rollout_id="r", now=2.0)
    async with database.writing() as tx:
        await desired.unassign(tx, ["b"], "kws")
        await desired.unassign(tx, ["b"], "other")
    assert heard == [{"a", "b"}, {"a"}, {"b"}]
    async with database.reading() as connection:
        rows = (await connection.execute(select(tables.assignments))).all()
        generations = dict(
            (await connection.execute(select(tables.devices.c.id, tables.devices.c.generation))).all()
        )
    assert [tuple(row) for row in rows] == [("a", "kws", 2, 3, True, None, "finish", "r", 2.0)]
    assert generations == {"a": 2, "b": 2, "c": 0}


async def _add_device(connection, id_: str) -> None:
    row = {"id": id_, "name": id_, "token_sha256": id_ * 64, "labels": {}, "enrolled_at": 0.0}
    await connection.execute(insert(tables.devices).values(row))
