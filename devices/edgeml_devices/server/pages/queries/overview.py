"""The whole fleet at a glance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import and_, func, select
from sqlalchemy.engine import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeml_devices.messages import Result
from edgeml_devices.server.alerts.states import AlertState
from edgeml_devices.server.alerts.tables import alerts
from edgeml_devices.server.pages.queries.presence import PRESENCES, of_present, presence
from edgeml_devices.server.pages.queries.rollouts import RolloutRow, open_rollouts
from edgeml_devices.server.tables import signed_metadata, statuses

_DAY_S: Final = 86_400.0
_SOON_S: Final[Mapping[str, float]] = {"snapshot": 0.0, "timestamp": 0.0}
"""The server signs these again by itself: they are a worry only once it did not."""
_OFFLINE_SOON_S: Final = 30 * _DAY_S
_MODELS, _FAILURES = 100, 20
_GROUPS: Final = 5000


@dataclass(slots=True)
class ModelUse:
    """One model on all devices that are not retired."""

    model: str
    devices: int = 0
    states: Counter[str] = field(default_factory=Counter)
    running: Counter[int | None] = field(default_factory=Counter)
    """By release; ``None``: nothing."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Devices whose last attempt at a model failed for the same reason."""

    model: str
    release: int | None
    reason: str
    devices: int


@dataclass(frozen=True, slots=True)
class Expiry:
    """Signed metadata as it is current."""

    role: str
    version: int
    expires_at: float
    state: str
    """``valid``, ``soon`` or ``expired``."""


@dataclass(frozen=True, slots=True)
class Overview:
    """What the first page shows."""

    presences: Mapping[str, int]
    models: tuple[ModelUse, ...]
    failures: tuple[Failure, ...]
    rollouts: tuple[RolloutRow, ...]
    expiries: tuple[Expiry, ...]
    firing: int
    """Alerts."""


async def overview(connection: AsyncConnection, now: float) -> Overview:
    """Read the first page's numbers."""
    rows = await _groups(connection)
    return Overview(
        await _presences(connection, now),
        _uses(rows),
        _failures(rows),
        await open_rollouts(connection),
        await _expiries(connection, now),
        await _firing(connection),
    )


async def _firing(connection: AsyncConnection) -> int:
    statement = select(func.count()).select_from(alerts).where(alerts.c.state == AlertState.FIRING)
    return (await connection.execute(statement)).scalar_one()


async def _presences(connection: AsyncConnection, now: float) -> Mapping[str, int]:
    word = presence(now).label("word")
    rows = await connection.execute(select(word, func.count()).group_by(word))
    found = {row.word: row[1] for row in rows}
    return {name: found.get(name, 0) for name in PRESENCES}


async def _groups(connection: AsyncConnection) -> list[Row[Any]]:
    """Count statuses by all that the page needs, once."""
    keys = (
        statuses.c.model,
        statuses.c.running,
        statuses.c.state,
        statuses.c.target,
        statuses.c.result,
        statuses.c.reason,
    )
    count = func.count().label("devices")
    statement = (
        select(*keys, count)
        .where(of_present(statuses.c.device_id))
        .group_by(*keys)
        .order_by(count.desc())
        .limit(_GROUPS)
    )
    return list(await connection.execute(statement))


def _uses(rows: list[Row[Any]]) -> tuple[ModelUse, ...]:
    found: dict[str, ModelUse] = {}
    for row in rows:
        use = found.setdefault(row.model, ModelUse(row.model))
        use.devices += row.devices
        use.states[row.state] += row.devices
        use.running[row.running] += row.devices
    most = sorted(found.values(), key=lambda use: -use.devices)[:_MODELS]
    return tuple(sorted(most, key=lambda use: use.model))


def _failures(rows: list[Row[Any]]) -> tuple[Failure, ...]:
    counts: Counter[tuple[str, int | None, str]] = Counter()
    for row in rows:
        if row.result is not None and row.result != Result.SUCCESSFUL:
            counts[row.model, row.target, row.reason or "unknown"] += row.devices
    return tuple(Failure(*key, count) for key, count in counts.most_common(_FAILURES))


async def _expiries(connection: AsyncConnection, now: float) -> tuple[Expiry, ...]:
    newest = (
        select(signed_metadata.c.role, func.max(signed_metadata.c.version).label("version"))
        .group_by(signed_metadata.c.role)
        .subquery()
    )
    table = signed_metadata
    statement = (
        select(table.c.role, table.c.version, table.c.expires_at)
        .join(newest, and_(newest.c.role == table.c.role, newest.c.version == table.c.version))
        .order_by(table.c.expires_at)
    )
    return tuple(
        Expiry(row.role, row.version, row.expires_at, _expiry_state(row.role, row.expires_at - now))
        for row in await connection.execute(statement)
    )


def _expiry_state(role: str, left_s: float) -> str:
    if left_s <= 0:
        return "expired"
    return "soon" if left_s < _SOON_S.get(role, _OFFLINE_SOON_S) else "valid"
