"""Messages about alerts on their way: sent at least once, tried again for a day, then given up."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import delete, insert, select, update

from edgeml.errors import ServerError
from edgeml_devices.server.alerts.delivering import Deliveries
from edgeml_devices.server.alerts.receivers import LONGEST_TIMEOUT_S, Receiver, Receivers
from edgeml_devices.server.alerts.tables import alert_notices
from edgeml_devices.server.database import Database
from edgeml_devices.server.transaction import Transaction

_LOG: Final = logging.getLogger(__name__)
_FIRST_RETRY_S: Final = 15.0
_LONGEST_RETRY_S: Final = 3600.0
_GIVE_UP_S: Final = 86400.0
_KEEP_S: Final = 14 * 86400.0
_AT_ONCE: Final = 50
"""Messages that are sent at a time."""
_CLAIM_S: Final = 3 * LONGEST_TIMEOUT_S
"""Sending takes up to two timeouts; what a process that died then had in hand is sent again after so long."""


async def is_due(tx: Transaction, rule: str, receiver: str, before: float) -> bool:
    """Say whether the last message about a rule was made before a moment, or never."""
    mine = alert_notices.c.rule == rule, alert_notices.c.receiver == receiver
    statement = select(alert_notices.c.created_at).where(*mine).order_by(alert_notices.c.id.desc()).limit(1)
    last = (await tx.connection.execute(statement)).scalar()
    return last is None or last <= before


async def enqueue(tx: Transaction, rule: str, receiver: str, body: dict[str, Any], now: float) -> None:
    """Put a message out; an older one of the rule that could not be delivered is out of date."""
    mine = alert_notices.c.rule == rule, alert_notices.c.receiver == receiver
    await tx.connection.execute(
        update(alert_notices)
        .where(*mine, alert_notices.c.ended_at.is_(None), alert_notices.c.attempts > 0)
        .values(ended_at=now, outcome="superseded")
    )
    row = {"rule": rule, "receiver": receiver, "body": body, "created_at": now, "next_at": now}
    await tx.connection.execute(insert(alert_notices).values(row | {"attempts": 0, "error": ""}))


async def send_waiting(
    database: Database, deliveries: Deliveries, receivers: Receivers, clock: Callable[[], float]
) -> None:
    """Send what is due, to all receivers at once; what fails is due again later."""
    by_name = {one.name: one for one in receivers.receivers}
    waiting: dict[str, list[Any]] = {}
    for notice in await _claim(database, clock()):
        waiting.setdefault(notice.receiver, []).append(notice)
    courier = _Courier(database, deliveries, clock)
    async with asyncio.TaskGroup() as group:
        for name, notices in waiting.items():
            group.create_task(courier.send(name, by_name.get(name), notices))


@dataclass(frozen=True, slots=True)
class _Courier:
    database: Database
    deliveries: Deliveries
    clock: Callable[[], float]

    async def send(self, name: str, receiver: Receiver | None, notices: Sequence[Any]) -> None:
        """Send one receiver's messages in their order; the first that fails holds back the others."""
        begun, error = time.monotonic(), ""
        for place, notice in enumerate(notices):
            if error or time.monotonic() - begun > LONGEST_TIMEOUT_S:
                await _put_off(
                    self.database, notices[place:], self.clock() + (_FIRST_RETRY_S if error else 0)
                )
                return
            if receiver is None:
                error = f"there is no receiver {name!r} any more"
            else:
                try:
                    await self.deliveries.deliver(receiver, notice.body)
                except ServerError as failure:
                    error = str(failure)
            if error:
                _LOG.warning("an alert was not delivered: %s", error)
            await _note(self.database, notice, error, self.clock())


async def _claim(database: Database, now: float) -> Sequence[Any]:
    is_waiting = alert_notices.c.ended_at.is_(None), alert_notices.c.next_at <= now
    async with database.writing() as tx:
        statement = select(alert_notices).where(*is_waiting).order_by(alert_notices.c.id).limit(_AT_ONCE)
        rows = (await tx.connection.execute(statement.with_for_update(skip_locked=True))).all()
        await _wait(tx, rows, now + _CLAIM_S)
        await tx.connection.execute(delete(alert_notices).where(alert_notices.c.ended_at < now - _KEEP_S))
    return rows


async def _put_off(database: Database, notices: Sequence[Any], until: float) -> None:
    async with database.writing() as tx:
        await _wait(tx, notices, until)


async def _wait(tx: Transaction, notices: Sequence[Any], until: float) -> None:
    ids = [notice.id for notice in notices]
    if ids:
        mine = update(alert_notices).where(alert_notices.c.id.in_(ids))
        await tx.connection.execute(mine.values(next_at=until))


async def _note(database: Database, notice: Any, error: str, now: float) -> None:
    attempts = notice.attempts + 1
    outcome = None if error else "delivered"
    if error and now - notice.created_at > _GIVE_UP_S:
        outcome = "given up"
    wait_s = min(_FIRST_RETRY_S * 2 ** min(attempts, 20), _LONGEST_RETRY_S)
    values = {
        "attempts": attempts,
        "error": error,
        "next_at": now + wait_s,
        "ended_at": None if outcome is None else now,
        "outcome": outcome,
    }
    async with database.writing() as tx:
        mine = update(alert_notices).where(alert_notices.c.id == notice.id)
        await tx.connection.execute(mine.values(values))
