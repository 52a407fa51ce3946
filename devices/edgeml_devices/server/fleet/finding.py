"""One device, by what people call it."""

from __future__ import annotations

from sqlalchemy import RowMapping, select
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeml_devices.server.refusals import not_found
from edgeml_devices.server.tables import devices


async def find_device(connection: AsyncConnection, device: str, *, lock: bool = False) -> RowMapping:
    """Give a device's row by its id or name; an id goes before a name that looks like one.

    Raises:
        RefusalError: 404.
    """
    for column in (devices.c.id, devices.c.name):
        statement = select(devices).where(column == device)
        if lock:
            statement = statement.with_for_update()
        row = (await connection.execute(statement)).mappings().first()
        if row is not None:
            return row
    raise not_found("device", device)
