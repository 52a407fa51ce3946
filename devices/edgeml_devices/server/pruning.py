"""What does not stay: old health, events, telemetry, and uploads that nobody goes on with."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from sqlalchemy import delete, select

from edgeml_devices.server.services import Services
from edgeml_devices.server.tables import events, health

_DAY_S: Final = 86400.0
_TOGETHER: Final = 5000
"""Rows of one transaction: others want to write, too."""


async def prune(services: Services) -> None:
    """Remove what is older than the settings keep."""
    now = time.time()
    settings = services.settings
    for table, days in ((health, settings.keep_health_days), (events, settings.keep_events_days)):
        old = select(table.c.id).where(table.c.received_at < now - days * _DAY_S)
        removed = _TOGETHER
        while removed == _TOGETHER:
            async with services.database.writing() as tx:
                some = old.order_by(table.c.id).limit(_TOGETHER)
                removed = (await tx.connection.execute(delete(table).where(table.c.id.in_(some)))).rowcount
    await asyncio.to_thread(services.blobs.remove_stale)
    await services.telemetry.prune(
        now - settings.keep_telemetry_days * _DAY_S, now - settings.keep_telemetry_hours_days * _DAY_S
    )
