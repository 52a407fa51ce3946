"""The releases, and how many devices run them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import and_, func, or_, select
from sqlalchemy.engine import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeml_devices.server.pages.queries.presence import of_present
from edgeml_devices.server.tables import assignments, releases, statuses

PAGE: Final = 50


@dataclass(frozen=True, slots=True)
class ReleaseRow:
    """One release of one model."""

    release: Row[Any]
    """Of ``releases``."""
    running: int
    """Devices that run it."""
    desired: int
    """Devices that are to run it."""


@dataclass(frozen=True, slots=True)
class ReleaseList:
    """One page, by model, newest first."""

    rows: tuple[ReleaseRow, ...]
    after: tuple[str, int] | None
    """Model and release of the last one where more follow."""


async def release_list(connection: AsyncConnection, after: tuple[str, int] | None) -> ReleaseList:
    """Read a page of releases."""
    table = releases
    statement = select(table)
    if after is not None:
        model, release = after
        same = and_(table.c.model == model, table.c.release < release)
        statement = statement.where(or_(table.c.model > model, same))
    ordered = statement.order_by(table.c.model, table.c.release.desc()).limit(PAGE + 1)
    found = list(await connection.execute(ordered))
    shown = found[:PAGE]
    models = sorted({row.model for row in shown})
    running = await _counts(connection, statuses, statuses.c.running, models)
    desired = await _counts(connection, assignments, assignments.c.release, models)
    rows = tuple(
        ReleaseRow(row, running.get((row.model, row.release), 0), desired.get((row.model, row.release), 0))
        for row in shown
    )
    last = shown[-1] if len(found) > PAGE else None
    return ReleaseList(rows, None if last is None else (last.model, last.release))


async def _counts(
    connection: AsyncConnection, table: Any, release: Any, models: list[str]
) -> dict[tuple[str, int], int]:
    statement = (
        select(table.c.model, release, func.count())
        .where(table.c.model.in_(models), of_present(table.c.device_id))
        .group_by(table.c.model, release)
    )
    return {(row[0], row[1]): row[2] for row in await connection.execute(statement)}
