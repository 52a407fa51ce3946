"""Groups: selectors with a name."""

from __future__ import annotations

import time
from typing import Any

from fastapi import APIRouter
from sqlalchemy import RowMapping, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeml_devices.server import audit
from edgeml_devices.server.auth import Operator, Viewer
from edgeml_devices.server.fleet import selectors
from edgeml_devices.server.fleet.labels import check_name
from edgeml_devices.server.refusals import not_found
from edgeml_devices.server.routes.answers import GroupAnswer, GroupBody, GroupList, Name
from edgeml_devices.server.services import ServicesOf
from edgeml_devices.server.tables import devices, groups

router = APIRouter(prefix="/v1/groups", tags=["groups"])


@router.get("")
async def list_groups(services: ServicesOf, _viewer: Viewer) -> GroupList:
    """List all groups with how many devices each has now."""
    async with services.database.reading() as connection:
        rows = (await connection.execute(select(groups).order_by(groups.c.name))).mappings().all()
        return GroupList(groups=[await _answer(connection, row) for row in rows])


@router.get("/{name}")
async def show_group(services: ServicesOf, _viewer: Viewer, name: Name) -> GroupAnswer:
    """Show one group."""
    async with services.database.reading() as connection:
        return await _answer(connection, await _find(connection, name))


@router.put("/{name}")
async def set_group(services: ServicesOf, operator: Operator, name: Name, body: GroupBody) -> GroupAnswer:
    """Make a group, or give it another selector. Rollouts that were created keep the one they had."""
    check_name("group", name)
    selectors.parse(body.selector)
    async with services.database.writing() as tx:
        values: dict[str, Any] = {"selector": body.selector}
        changed = await tx.connection.execute(update(groups).where(groups.c.name == name).values(values))
        if not changed.rowcount:
            await tx.connection.execute(insert(groups).values(name=name, created_at=time.time(), **values))
        await audit.record(tx, operator, "group.set", name, values)
        return await _answer(tx.connection, await _find(tx.connection, name))


@router.delete("/{name}", status_code=204)
async def delete_group(services: ServicesOf, operator: Operator, name: Name) -> None:
    """Delete a group; its devices stay."""
    async with services.database.writing() as tx:
        await _find(tx.connection, name)
        await tx.connection.execute(delete(groups).where(groups.c.name == name))
        await audit.record(tx, operator, "group.delete", name)


async def _find(connection: AsyncConnection, name: str) -> RowMapping:
    row = (await connection.execute(select(groups).where(groups.c.name == name))).mappings().first()
    if row is None:
        raise not_found("group", name)
    return row


async def _answer(connection: AsyncConnection, row: RowMapping) -> GroupAnswer:
    here = selectors.parse(row["selector"]).where(), devices.c.retired_at.is_(None)
    count = (await connection.execute(select(func.count()).select_from(devices).where(*here))).scalar()
    return GroupAnswer(**row, devices=count or 0)
