"""Which devices a page reads in detail: a bounded number of them, others in each hour."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Select, and_, exists, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeml_devices.server.tables import devices, statuses

MOST: Final = 50
"""Devices whose windows or hours one page reads."""
WINDOWS: Final = 6000
"""Windows of a minute that one page reads, about: more devices, less time."""
_HOUR_S: Final = 3600.0
_DAY_S: Final = 24 * _HOUR_S


@dataclass(frozen=True, slots=True)
class Chosen:
    """Devices by chance."""

    ids: frozenset[str]
    of: int
    """So many there are."""

    @property
    def windows_s(self) -> float:
        """How far back their single windows are read."""
        return windows_s(len(self.ids))


def windows_s(streams: int) -> float:
    """Give how far back windows of so many devices, or models, are read: from an hour to a day."""
    return min(max(WINDOWS * 60.0 / max(streams, 1), _HOUR_S), _DAY_S)


async def choose(connection: AsyncConnection, now: float, model: str = "", release: int = 0) -> Chosen:
    """Choose devices: those that said they run a release, or any where none did.

    Ids are random, so the first ones behind a place are a sample; the place changes each hour.
    """
    if model:
        runs = exists().where(
            statuses.c.device_id == devices.c.id,
            and_(statuses.c.model == model, statuses.c.running == release),
        )
        chosen = await _choose(connection, now, select(devices.c.id).where(runs))
        if chosen.ids:
            return chosen
    return await _choose(connection, now, select(devices.c.id))


async def _choose(connection: AsyncConnection, now: float, statement: Select[Any]) -> Chosen:
    here = statement.where(devices.c.retired_at.is_(None))
    of = (await connection.execute(select(func.count()).select_from(here.subquery()))).scalar_one()
    place = hashlib.sha256(f"{now // _HOUR_S:.0f}".encode()).hexdigest()[:16]
    ordered = here.order_by(devices.c.id).limit(MOST)
    found = [row.id for row in await connection.execute(ordered.where(devices.c.id >= place))]
    if len(found) < MOST:
        rest = ordered.where(devices.c.id < place).limit(MOST - len(found))
        found += [row.id for row in await connection.execute(rest)]
    return Chosen(frozenset(found), of)
