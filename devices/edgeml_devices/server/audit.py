"""The audit log: rows that are only ever added, each with the hash of the row before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeml_devices import audit_chain
from edgeml_devices.server.tables import audit as table
from edgeml_devices.server.transaction import Entry, Transaction, take_turn

_LOCK: Final = 0x65646765_61756469
"""PostgreSQL's advisory lock of the last row ("edgeaudi")."""
_ACTOR, _ACTION, _OBJECT = 160, 64, 256


@dataclass(frozen=True, slots=True)
class Head:
    """The last row; its hash stands for the whole log."""

    id: int
    sha256: str


async def record(
    tx: Transaction, actor: object, action: str, about: object, detail: Mapping[str, Any] | None = None
) -> None:
    """Have a row written with the transaction, at its end.

    Args:
        tx: the transaction that does what is recorded.
        actor: who did it; an :class:`edgeml_devices.server.auth.Actor` or its text.
        action: what was done, ``device.retire``.
        about: to what: a device's id, ``kws/3``, a rollout's id.
        detail: what JSON can write.
    """
    tx.entries.append(Entry(str(actor), action, str(about), detail or {}))


async def head(connection: AsyncConnection) -> Head:
    """Give the last row's id and hash; id 0 of an empty log."""
    row = (
        await connection.execute(select(table.c.id, table.c.sha256).order_by(table.c.id.desc()).limit(1))
    ).first()
    return Head(0, audit_chain.START) if row is None else Head(row.id, row.sha256)


async def append(connection: AsyncConnection, entries: Sequence[Entry], now: float) -> None:
    """Write rows behind the last. Holds a lock until the transaction ends: call it last."""
    await take_turn(connection, _LOCK)
    last = await head(connection)
    number, previous = last.id, last.sha256
    rows = []
    for entry in entries:
        number += 1
        row = {
            "id": number,
            "at": now,
            "actor": entry.actor[:_ACTOR],
            "action": entry.action[:_ACTION],
            "object": entry.object[:_OBJECT],
            "detail": dict(entry.detail),
        }
        sha256 = audit_chain.row_sha256(previous, row)
        rows.append(row | {"previous_sha256": previous, "sha256": sha256})
        previous = sha256
    await connection.execute(insert(table), rows)
