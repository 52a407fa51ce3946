"""Brings a database's tables to the shape that this version of the server needs.

Every process does it when it starts; a lock makes the second wait for the first and find nothing to do.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from edgeml.errors import ServerError
from edgeml_devices.server.database import Database
from edgeml_devices.server.transaction import Transaction, take_turn

_LOCK: Final = 0x65646765_6D696772
"""PostgreSQL's advisory lock of the tables ("edgemigr")."""


async def migrate(database: Database) -> tuple[str | None, str]:
    """Run what is missing, all of it or nothing; give the step before and the step now.

    Raises:
        ServerError: the database was made by a newer version of edgeml.
    """
    async with database.writing() as transaction:
        return await migrate_within(transaction)


async def migrate_within(transaction: Transaction, step: str | None = None) -> tuple[str | None, str]:
    """Do what :func:`migrate` does as part of a transaction; ``step``: no further than to this one."""
    await take_turn(transaction.connection, _LOCK)
    return await transaction.connection.run_sync(_upgrade, step)


def _upgrade(connection: Connection, wanted: str | None) -> tuple[str | None, str]:
    config = Config()
    config.set_main_option("script_location", str(files("edgeml_devices.server") / "migrations"))
    config.attributes["connection"] = connection
    steps = ScriptDirectory.from_config(config)
    known = {one.revision for one in steps.walk_revisions()}
    before = MigrationContext.configure(connection).get_current_revision()
    wanted = wanted or steps.get_current_head() or ""
    for step in (before, wanted):
        if step is not None and step not in known:
            raise ServerError(
                f"this version of edgeml does not know step {step} of the tables; use the newer version "
                "that made it, or a back-up of this one"
            )
    if before != wanted:
        command.upgrade(config, wanted)
    return before, wanted
