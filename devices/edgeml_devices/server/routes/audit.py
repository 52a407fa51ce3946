"""The audit log, to be read and checked."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from sqlalchemy import select

from edgeml_devices.server import audit
from edgeml_devices.server.auth import Viewer
from edgeml_devices.server.routes.answers import AuditHead, AuditList, AuditRow
from edgeml_devices.server.services import ServicesOf
from edgeml_devices.server.tables import audit as table

router = APIRouter(prefix="/v1/audit", tags=["audit"])


@router.get("")
async def list_audit(
    services: ServicesOf,
    _viewer: Viewer,
    after: Annotated[int, Query(ge=0, le=2**63 - 1)] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    action: str | None = None,
    actor: str | None = None,
    object: str | None = None,  # noqa: A002 - the row's name for it
) -> AuditList:
    """List what happened behind a row, the oldest first; each row's hash covers the row before."""
    statement = select(table).where(table.c.id > after)
    for column, value in ((table.c.action, action), (table.c.actor, actor), (table.c.object, object)):
        if value is not None:
            statement = statement.where(column == value)
    async with services.database.reading() as connection:
        rows = (await connection.execute(statement.order_by(table.c.id).limit(limit + 1))).mappings().all()
    found = [AuditRow(**row) for row in rows[:limit]]
    return AuditList(audit=found, next=str(found[-1].id) if len(rows) > limit else None)


@router.get("/head")
async def show_head(services: ServicesOf, _viewer: Viewer) -> AuditHead:
    """Show the last row's id and hash: whoever keeps them can prove later that nothing was changed."""
    async with services.database.reading() as connection:
        head = await audit.head(connection)
    return AuditHead(id=head.id, sha256=head.sha256)
