"""Alerts that fire, and those that wait to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeml_devices.server.alerts.states import AlertState
from edgeml_devices.server.alerts.tables import alert_rules, alerts

MOST: Final = 50


@dataclass(frozen=True, slots=True)
class AlertRow:
    """One alert."""

    rule: str
    state: str
    value: float
    since: float
    key: tuple[tuple[str, str], ...]
    """Of which device, release …; empty: the whole fleet."""


@dataclass(frozen=True, slots=True)
class AlertList:
    """What is to be looked after."""

    rows: tuple[AlertRow, ...]
    firing: int
    rules: int
    faults: tuple[tuple[str, str], ...]
    """Rules that cannot be evaluated, and why."""


async def alert_list(connection: AsyncConnection, device: str = "") -> AlertList:
    """Read alerts that fire or are pending, firing ones first.

    Args:
        connection: of the server's database.
        device: a name: only what is about this device.
    """
    live = alerts.c.state.in_([AlertState.FIRING, AlertState.PENDING])
    statement = select(alerts).where(live).order_by(alerts.c.state, alerts.c.since.desc())
    most = 20 * MOST if device else MOST
    rows = [
        AlertRow(row.rule, row.state, row.value, row.since, tuple((str(k), str(v)) for k, v in row.key))
        for row in await connection.execute(statement.limit(most))
    ]
    if device:
        rows = [one for one in rows if ("device", device) in one.key]
    firing = select(func.count()).select_from(alerts).where(alerts.c.state == AlertState.FIRING)
    faults = select(alert_rules.c.name, alert_rules.c.error).where(alert_rules.c.error != "").limit(MOST)
    return AlertList(
        tuple(rows[:MOST]),
        (await connection.execute(firing)).scalar_one(),
        (await connection.execute(select(func.count()).select_from(alert_rules))).scalar_one(),
        tuple((row.name, row.error) for row in await connection.execute(faults)),
    )
