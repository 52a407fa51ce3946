"""Rollouts as JSON, for the calls that show them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeml_devices.server.rollouts import gates, records, windows
from edgeml_devices.server.rollouts.engine import Counts, Reading
from edgeml_devices.server.rollouts.policy import ACTIVE, DeviceState, write_policy
from edgeml_devices.server.rollouts.records import Rollout
from edgeml_devices.server.rollouts.tables import (
    rollout_devices,
    rollout_failures,
    rollout_waves,
    rollouts,
)
from edgeml_devices.server.tables import devices, statuses

_FAILURES: Final = 20
"""Failures shown with a rollout: the newest."""


async def rollout_list(
    connection: AsyncConnection, *, model: str | None, state: str | None, after: str | None, limit: int
) -> dict[str, Any]:
    """Give rollouts without their devices, the newest first."""
    statement = select(rollouts).order_by(rollouts.c.created_at.desc(), rollouts.c.id.desc())
    if model is not None:
        statement = statement.where(rollouts.c.model == model)
    if state is not None:
        statement = statement.where(rollouts.c.state == state)
    if after is not None:
        last = select(rollouts.c.created_at).where(rollouts.c.id == after).scalar_subquery()
        statement = statement.where(
            (rollouts.c.created_at < last) | ((rollouts.c.created_at == last) & (rollouts.c.id < after))
        )
    rows = (await connection.execute(statement.limit(limit + 1))).mappings().all()
    shown = [records.read(row) for row in rows[:limit]]
    counts = await records.count_all(connection, [rollout.id for rollout in shown])
    found = [_head(rollout, _total(counts[rollout.id])) for rollout in shown]
    return {"rollouts": found, "next": found[-1]["id"] if len(rows) > limit else None}


def _head(rollout: Rollout, total: Counts) -> dict[str, Any]:
    return {
        "id": rollout.id,
        "model": rollout.policy.model,
        "release": rollout.policy.release,
        "state": rollout.state.value,
        "reason": rollout.reason,
        "priority": rollout.policy.priority,
        "group": rollout.policy.group,
        "selector": rollout.selector,
        "wave": rollout.wave,
        "wave_count": len(rollout.policy.waves),
        "created_at": rollout.created_at,
        "created_by": rollout.created_by,
        "approved_by": rollout.approved_by,
        "started_at": rollout.started_at,
        "changed_at": rollout.changed_at,
        "ended_at": rollout.ended_at,
        "counts": asdict(total),
    }


def _total(counts: Mapping[int | None, Counts]) -> Counts:
    names = Counts.__dataclass_fields__
    return Counts(**{name: sum(getattr(one, name) for one in counts.values()) for name in names})


async def rollout_document(connection: AsyncConnection, rollout: Rollout) -> dict[str, Any]:
    """Give all of a rollout but its single devices."""
    counts = await records.count(connection, rollout.id)
    now = time.time()
    readings: tuple[Reading, ...] = ()
    if rollout.state in ACTIVE:
        readings = await gates.current(connection, rollout, counts.get(rollout.wave, Counts()), now)
    return _head(rollout, _total(counts)) | {
        "policy": write_policy(rollout.policy),
        "waves": await _waves(connection, rollout, counts),
        "gates": [asdict(reading) for reading in readings],
        "progress": await records.progress(connection, rollout),
        "window": {
            "open": windows.is_open(rollout.policy, now),
            "changes_at": windows.next_change(rollout.policy, now),
        },
        "skipped": await _skipped(connection, rollout.id),
        "failures": await _failures(connection, rollout.id),
    }


async def _waves(
    connection: AsyncConnection, rollout: Rollout, counts: Mapping[int | None, Counts]
) -> list[dict[str, Any]]:
    statement = select(rollout_waves).where(rollout_waves.c.rollout_id == rollout.id)
    released = {row.wave: row for row in await connection.execute(statement)}
    found = []
    for number, wave in enumerate(rollout.policy.waves, 1):
        row = released.get(number)
        found.append(
            {
                "wave": number,
                "what": str(wave),
                "released_at": None if row is None else row.released_at,
                "reached_at": None if row is None else row.reached_at,
                "counts": asdict(counts.get(number, Counts())),
            }
        )
    return found


async def _skipped(connection: AsyncConnection, rollout_id: str) -> dict[str, int]:
    mine = rollout_devices.c
    statement = (
        select(mine.reason, func.count())
        .where(mine.rollout_id == rollout_id, mine.state == DeviceState.SKIPPED.value)
        .group_by(mine.reason)
        .order_by(mine.reason)
    )
    return {row[0]: row[1] for row in await connection.execute(statement)}


async def _failures(connection: AsyncConnection, rollout_id: str) -> list[dict[str, Any]]:
    table = rollout_failures.c
    statement = (
        select(table.device_id, devices.c.name, table.attempt, table.at, table.reason, table.detail)
        .join(devices, devices.c.id == table.device_id)
        .where(table.rollout_id == rollout_id)
        .order_by(table.at.desc(), table.device_id)
        .limit(_FAILURES)
    )
    return [
        {"device": row.device_id, "name": row.name, "attempt": row.attempt}
        | {"at": row.at, "reason": row.reason, "detail": row.detail}
        for row in await connection.execute(statement)
    ]


async def device_list(
    connection: AsyncConnection, rollout: Rollout, *, state: str | None, after: str | None, limit: int
) -> dict[str, Any]:
    """Give a rollout's devices and what they said last, by name."""
    mine, said = rollout_devices.c, statuses.c
    model = rollout.policy.model
    statement = (
        select(
            mine.device_id,
            devices.c.name,
            devices.c.last_seen,
            mine.wave,
            mine.late,
            mine.state,
            mine.reason,
            mine.detail,
            mine.attempt,
            mine.assigned_at,
            mine.ended_at,
            said.state.label("reported"),
            said.running,
            said.variant,
        )
        .join(devices, devices.c.id == mine.device_id)
        .join(statuses, (said.device_id == mine.device_id) & (said.model == model), isouter=True)
        .where(mine.rollout_id == rollout.id)
        .order_by(devices.c.name)
        .limit(limit + 1)
    )
    if state is not None:
        statement = statement.where(mine.state == state)
    if after is not None:
        statement = statement.where(devices.c.name > after)
    rows = [dict(row) for row in (await connection.execute(statement)).mappings()]
    for row in rows:
        row["device"] = row.pop("device_id")
    return {"devices": rows[:limit], "next": rows[limit - 1]["name"] if len(rows) > limit else None}
