"""One rollout as the database has it, and the locks under which it changes."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import RowMapping, case, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeml_devices.server.rollouts.engine import SELFTEST_REASONS, Counts, WaveView
from edgeml_devices.server.rollouts.policy import (
    ACTIVE,
    ENDED,
    DeviceState,
    Policy,
    RolloutState,
    read_policy,
)
from edgeml_devices.server.rollouts.tables import rollout_devices, rollout_waves, rollouts
from edgeml_devices.server.tables import statuses
from edgeml_devices.server.transaction import Transaction, take_turn

_BUDGETS: Final = 0x65646765_62756467
"""PostgreSQL's advisory lock of the disruption budgets ("edgebudg")."""


@dataclass(frozen=True, slots=True)
class Rollout:
    """A row of ``rollouts``."""

    id: str
    policy: Policy
    selector: str
    state: RolloutState
    reason: str
    wave: int
    created_at: float
    created_by: str
    creator_id: str
    approved_by: str | None
    started_at: float | None
    changed_at: float
    ended_at: float | None
    health_id: int

    @property
    def rank(self) -> tuple[int, float, str]:
        """Of two rollouts that want the same device, the higher wins."""
        return self.policy.priority, self.created_at, self.id


def read(row: RowMapping) -> Rollout:
    """Read a row of ``rollouts``."""
    kept = ("id", "selector", "reason", "wave", "created_at", "created_by", "creator_id", "approved_by")
    times = ("started_at", "changed_at", "ended_at", "health_id")
    return Rollout(
        policy=read_policy(row["policy"]),
        state=RolloutState(row["state"]),
        **{name: row[name] for name in (*kept, *times)},
    )


async def find(connection: AsyncConnection, rollout_id: str) -> Rollout | None:
    """Give a rollout."""
    statement = select(rollouts).where(rollouts.c.id == rollout_id)
    row = (await connection.execute(statement)).mappings().first()
    return None if row is None else read(row)


async def lock(tx: Transaction, rollout_id: str) -> Rollout | None:
    """Give a rollout that nobody else changes before this transaction ends; wait for whoever does."""
    statement = select(rollouts).where(rollouts.c.id == rollout_id).with_for_update()
    row = (await tx.connection.execute(statement)).mappings().first()
    return None if row is None else read(row)


async def try_lock(tx: Transaction, rollout_id: str) -> Rollout | None:
    """Give an active rollout as :func:`lock`; ``None`` if it ended, or another process works on it."""
    statement = select(rollouts).where(rollouts.c.id == rollout_id, rollouts.c.state.in_(ACTIVE))
    row = (await tx.connection.execute(statement.with_for_update(skip_locked=True))).mappings().first()
    return None if row is None else read(row)


async def lock_budgets(tx: Transaction) -> None:
    """Count and take places one after the other: a budget holds over all rollouts and processes."""
    await take_turn(tx.connection, _BUDGETS)


async def active_ids(connection: AsyncConnection) -> list[str]:
    """Give the rollouts that need ticks, the highest first."""
    statement = (
        select(rollouts.c.id)
        .where(rollouts.c.state.in_(ACTIVE))
        .order_by(rollouts.c.priority.desc(), rollouts.c.created_at.desc(), rollouts.c.id.desc())
    )
    return list((await connection.execute(statement)).scalars())


async def set_state(tx: Transaction, rollout: Rollout, state: RolloutState, reason: str, now: float) -> None:
    """Move a rollout to another state."""
    values: dict[str, Any] = {"state": state.value, "reason": reason, "changed_at": now}
    if state in ENDED:
        values["ended_at"] = now
    await tx.connection.execute(update(rollouts).where(rollouts.c.id == rollout.id).values(values))


async def set_reason(tx: Transaction, rollout: Rollout, reason: str) -> None:
    """Say what a rollout waits for, where that has changed."""
    if reason != rollout.reason:
        await tx.connection.execute(update(rollouts).where(rollouts.c.id == rollout.id).values(reason=reason))


async def count(connection: AsyncConnection, rollout_id: str) -> dict[int | None, Counts]:
    """Count a rollout's devices by wave, in the database; ``None``: those in no wave."""
    return (await count_all(connection, [rollout_id]))[rollout_id]


async def count_all(
    connection: AsyncConnection, rollout_ids: Collection[str]
) -> dict[str, dict[int | None, Counts]]:
    """Count each rollout's devices as :func:`count`, in one statement."""
    table = rollout_devices.c
    kind = case(
        (table.reason == "already_running", "already"),
        (table.reason.in_(SELFTEST_REASONS), "selftest"),
        else_="other",
    )
    key = (table.rollout_id, table.wave, table.state, table.forgiven)
    statement = (
        select(*key, kind.label("kind"), func.count().label("number"))
        .where(table.rollout_id.in_(rollout_ids))
        .group_by(*key, kind)
    )
    found: dict[str, dict[int | None, dict[str, int]]] = {one: {} for one in rollout_ids}
    for row in await connection.execute(statement):
        numbers = found[row.rollout_id].setdefault(row.wave, {})
        for name in _names(DeviceState(row.state), row.kind, forgiven=row.forgiven):
            numbers[name] = numbers.get(name, 0) + row.number
    return {
        rollout_id: {wave: Counts(**numbers) for wave, numbers in waves.items()}
        for rollout_id, waves in found.items()
    }


def _names(state: DeviceState, kind: str, *, forgiven: bool) -> tuple[str, ...]:
    """Give the fields of :class:`Counts` that a row counts in."""
    if state is DeviceState.FAILED:
        return (
            ("forgiven",)
            if forgiven
            else ("failed", "selftest_failed")
            if kind == "selftest"
            else ("failed",)
        )
    if state is DeviceState.SKIPPED and kind == "already":
        return ("skipped", "already")
    return (state.value.lower(),)


async def progress(connection: AsyncConnection, rollout: Rollout) -> dict[str, int]:
    """Count the devices under way by the state that they reported for this attempt; ``""``: none yet."""
    mine, said = rollout_devices.c, statuses.c
    of_attempt = (said.target == rollout.policy.release) & (said.attempt == mine.attempt)
    state = case((of_attempt, said.state), else_="")
    statement = (
        select(state.label("state"), func.count().label("number"))
        .select_from(
            rollout_devices.join(
                statuses,
                (said.device_id == mine.device_id) & (said.model == rollout.policy.model),
                isouter=True,
            )
        )
        .where(
            mine.rollout_id == rollout.id,
            mine.state.in_([DeviceState.HELD.value, DeviceState.ASSIGNED.value]),
        )
        .group_by(state)
    )
    return {row.state: row.number for row in await connection.execute(statement)}


async def waves(
    connection: AsyncConnection, rollout: Rollout, counts: Mapping[int | None, Counts]
) -> tuple[WaveView, ...]:
    """Give the waves that were released, in order."""
    statement = (
        select(rollout_waves).where(rollout_waves.c.rollout_id == rollout.id).order_by(rollout_waves.c.wave)
    )
    return tuple(
        WaveView(row.wave, counts.get(row.wave, Counts()), row.reached_at, row.data_missing_since)
        for row in await connection.execute(statement)
    )
