"""The server itself: what it is, how much it has, what needs somebody's hand."""

from __future__ import annotations

import time
from typing import Final

from fastapi import APIRouter
from sqlalchemy import func, select

import edgeml
from edgeml_devices.server.auth import Viewer
from edgeml_devices.server.routes.answers import Expiring, ServerAnswer
from edgeml_devices.server.services import ServicesOf
from edgeml_devices.server.tables import devices, releases

router = APIRouter(prefix="/v1/server", tags=["server"])
_SOON_S: Final = 14 * 86400.0
_ONLINE_S: Final = 120.0
"""Two polls."""


@router.get("")
async def show_server(services: ServicesOf, _viewer: Viewer) -> ServerAnswer:
    """Show version, counts, and which offline roles expire within 14 days."""
    now = time.time()
    here = select(func.count()).select_from(devices).where(devices.c.retired_at.is_(None))
    async with services.database.reading() as connection:
        count = (await connection.execute(here)).scalar() or 0
        online = (await connection.execute(here.where(devices.c.last_seen > now - _ONLINE_S))).scalar() or 0
        listed = (await connection.execute(select(func.count()).select_from(releases))).scalar() or 0
        roles = await services.repository.roles(connection)
    return ServerAnswer(
        version=edgeml.__version__,
        database=services.database.dialect,
        devices=count,
        online=online,
        releases=listed,
        repository=bool(roles),
        expiring=[
            Expiring(role=role, expires_at=expires_at)
            for role, (_, expires_at) in sorted(roles.items())
            if role not in {"snapshot", "timestamp"} and expires_at < now + _SOON_S
        ],
    )
