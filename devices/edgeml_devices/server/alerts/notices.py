"""Messages about alerts on their way: sent at least once, tried again for a day, then given up."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, Final

from sqlalchemy import delete, insert, select, update

from edgeml.errors import ServerError
from edgeml_devices.server.alerts.delivering import TIMEOUT_S, deliver
from edgeml_devices.server.alerts.receivers import Receivers
from edgeml_devices.server.alerts.tables import alert_notices
from edgeml_devices.server.database import Database
from edgeml_devices.server.transaction import Transaction

_LOG: Final = logging.getLogger(__name__)
_FIRST_RETRY_S: Final = 15.0
_LONGEST_RETRY_S: Final = 3600.0
_GIVE_UP_S: Final = 86400.0
_KEEP_S: Final = 14 * 86400.0
_AT_ONCE: Final = 50
"""Messages that one tick sends."""


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


async def send_waiting(database: Database, receivers: Receivers, clock: Callable[[], float]) -> None:
    """Send what is due; what fails is due again later."""
    by_name = {one.name: one for one in receivers.receivers}
    for notice in await _claim(database, clock()):
        error = ""
        if notice.receiver in by_name:
            try:
                await deliver(by_name[notice.receiver], notice.body)
            except ServerError as failure:
                error = str(failure)
        else:
            error = f"there is no receiver {notice.receiver!r} any more"
        if error:
            _LOG.warning("an alert was not delivered: %s", error)
        await _note(database, notice, error, clock())


async def _claim(database: Database, now: float) -> Sequence[Any]:
    is_waiting = alert_notices.c.ended_at.is_(None), alert_notices.c.next_at <= now
    async with database.writing() as tx:
        statement = select(alert_notices).where(*is_waiting).order_by(alert_notices.c.id).limit(_AT_ONCE)
        rows = (await tx.connection.execute(statement.with_for_update(skip_locked=True))).all()
        ids = [row.id for row in rows]
        if ids:
            until = now + TIMEOUT_S * (len(ids) + 1)
            mine = update(alert_notices).where(alert_notices.c.id.in_(ids))
            await tx.connection.execute(mine.values(next_at=until))
        await tx.connection.execute(delete(alert_notices).where(alert_notices.c.ended_at < now - _KEEP_S))
    return rows


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
