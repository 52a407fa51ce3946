"""Withdraws a release: no device is told to run it any more."""

from __future__ import annotations

import time

from sqlalchemy import RowMapping, and_, exists, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeml_devices.server import audit
from edgeml_devices.server.database import Database
from edgeml_devices.server.fleet import desired
from edgeml_devices.server.releases import find
from edgeml_devices.server.rollouts.policy import UNDER_WAY
from edgeml_devices.server.rollouts.tables import rollout_devices
from edgeml_devices.server.tables import assignments, releases, statuses


async def withdraw(database: Database, actor: object, model: str, release: int) -> RowMapping:
    """Let no device be told to run a release any more; those that run it go on.

    It is taken back from devices that do not run it; those of rollouts that go on are left to their abort.

    Raises:
        RefusalError: 404.
    """
    async with database.writing() as tx:
        row = await find(tx.connection, model, release)
        if row["withdrawn_at"] is None:
            await tx.connection.execute(
                update(releases)
                .where(releases.c.model == model, releases.c.release == release)
                .values(withdrawn_at=time.time())
            )
            waiting = await _waiting(tx.connection, model, release)
            await desired.unassign(tx, waiting, model)
            detail = {"unassigned": len(waiting)}
            await audit.record(tx, actor, "release.withdraw", f"{model}/{release}", detail)
        return await find(tx.connection, model, release)


async def _waiting(connection: AsyncConnection, model: str, release: int) -> list[str]:
    """Give the devices that were told to run a release, do not run it, and are under way in no rollout.

    Told by hand, or by a rollout that went on, or ended, without them.
    """
    told = and_(statuses.c.device_id == assignments.c.device_id, statuses.c.model == model)
    under_way = exists().where(
        rollout_devices.c.rollout_id == assignments.c.rollout_id,
        rollout_devices.c.device_id == assignments.c.device_id,
        rollout_devices.c.state.in_(UNDER_WAY),
    )
    statement = (
        select(assignments.c.device_id)
        .join(statuses, told, isouter=True)
        .where(
            assignments.c.model == model,
            assignments.c.release == release,
            ~under_way,
            or_(statuses.c.running.is_(None), statuses.c.running != release),
        )
    )
    return list((await connection.execute(statement)).scalars())
