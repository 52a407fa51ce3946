"""Which devices a question is about, by what people call them, and their names in the answer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeml_devices.server.database import pieces
from edgeml_devices.server.fleet import selectors
from edgeml_devices.server.fleet.finding import find_device
from edgeml_devices.server.refusals import not_found
from edgeml_devices.server.tables import devices, groups


async def choose_devices(
    connection: AsyncConnection, names: Sequence[str], of_groups: Sequence[str], selector: str
) -> frozenset[str] | None:
    """Give the ids of devices that all of the conditions choose; ``None``: there is no condition.

    Raises:
        RefusalError: 404: no such device or group.
        UsageError: a selector that cannot be read.
    """
    chosen: set[str] | None = None
    if names:
        chosen = {(await find_device(connection, name))["id"] for name in names}
    texts = [selector] if selector else []
    for name in of_groups:
        found = (await connection.execute(select(groups.c.selector).where(groups.c.name == name))).scalar()
        if found is None:
            raise not_found("group", name)
        texts.append(found)
    for text in texts:
        some = set(await selectors.select_ids(connection, selectors.parse(text)))
        chosen = some if chosen is None else chosen & some
    return None if chosen is None else frozenset(chosen)


async def device_names(connection: AsyncConnection, ids: Iterable[str]) -> dict[str, str]:
    """Give names by id."""
    names: dict[str, str] = {}
    for piece in pieces(sorted(ids)):
        rows = await connection.execute(select(devices.c.id, devices.c.name).where(devices.c.id.in_(piece)))
        names.update((row.id, row.name) for row in rows)
    return names
