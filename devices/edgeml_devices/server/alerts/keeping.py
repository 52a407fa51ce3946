"""Alerts in the database."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

from sqlalchemy import delete, insert, select

from edgeml_devices.server.alerts.states import Alert, AlertState, Key
from edgeml_devices.server.alerts.tables import alerts
from edgeml_devices.server.database import pieces
from edgeml_devices.server.transaction import Transaction


async def read_alerts(tx: Transaction, rule: str) -> dict[Key, Alert]:
    """Give a rule's alerts by key."""
    rows = (await tx.connection.execute(select(alerts).where(alerts.c.rule == rule))).mappings()
    found = [
        Alert(
            tuple((str(name), str(value)) for name, value in row["key"]),
            AlertState(row["state"]),
            row["value"],
            row["since"],
            row["held_at"],
            row["fired_at"],
            row["resolved_at"],
        )
        for row in rows
    ]
    return {one.key: one for one in found}


async def write_alerts(
    tx: Transaction, rule: str, before: Mapping[Key, Alert], after: Mapping[Key, Alert]
) -> None:
    """Write what changed of a rule's alerts."""
    changed = [one for key, one in after.items() if before.get(key) != one]
    gone = [_sha256(key) for key in before.keys() - after.keys()] + [_sha256(one.key) for one in changed]
    for piece in pieces(gone):
        await tx.connection.execute(
            delete(alerts).where(alerts.c.rule == rule, alerts.c.key_sha256.in_(piece))
        )
    rows = [
        {
            "rule": rule,
            "key_sha256": _sha256(one.key),
            "key": [list(pair) for pair in one.key],
            "state": one.state.value,
            "value": one.value,
            "since": one.since,
            "held_at": one.held_at,
            "fired_at": one.fired_at,
            "resolved_at": one.resolved_at,
        }
        for one in changed
    ]
    if rows:
        await tx.connection.execute(insert(alerts), rows)


def _sha256(key: Key) -> str:
    return hashlib.sha256(json.dumps(key).encode()).hexdigest()
