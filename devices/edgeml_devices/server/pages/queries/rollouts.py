"""The list of rollouts, and one rollout: its waves, what its gates say, what failed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import func, or_, select, tuple_
from sqlalchemy.engine import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeml_devices.server.pages.queries.presence import presence
from edgeml_devices.server.rollouts import gates, records
from edgeml_devices.server.rollouts.engine import Counts, Reading
from edgeml_devices.server.rollouts.policy import ENDED, DeviceState, RolloutState, Wave
from edgeml_devices.server.rollouts.tables import rollout_devices, rollout_waves, rollouts
from edgeml_devices.server.tables import devices

PAGE: Final = 20
_FAILURES: Final = 50
_REASONS: Final = 100
STATES: Final = (
    DeviceState.SUCCEEDED,
    DeviceState.FAILED,
    DeviceState.ASSIGNED,
    DeviceState.HELD,
    DeviceState.WAITING,
    DeviceState.SKIPPED,
    DeviceState.CANCELLED,
)
"""In the order of a bar."""


@dataclass(frozen=True, slots=True)
class RolloutRow:
    """One rollout of the list."""

    row: Row[Any]
    """Of ``rollouts``."""
    counts: Mapping[str, int]
    """Devices by state."""

    @property
    def devices(self) -> int:
        return sum(self.counts.values())


@dataclass(frozen=True, slots=True)
class RolloutList:
    """One page, newest first."""

    rows: tuple[RolloutRow, ...]
    before: str | None
    """Id of the last one where older ones follow."""


async def open_rollouts(connection: AsyncConnection) -> tuple[RolloutRow, ...]:
    """Read the rollouts that have not ended, the newest of them."""
    statement = select(rollouts).where(rollouts.c.state.not_in(ENDED))
    newest = statement.order_by(rollouts.c.created_at.desc(), rollouts.c.id.desc()).limit(PAGE)
    return await _with_counts(connection, list(await connection.execute(newest)))


async def rollout_list(connection: AsyncConnection, before: str) -> RolloutList:
    """Read a page of rollouts.

    Args:
        connection: to read with.
        before: id of a rollout; older ones are read. Empty: the newest.
    """
    key = tuple_(rollouts.c.created_at, rollouts.c.id)
    statement = select(rollouts)
    if before:
        last = select(rollouts.c.created_at).where(rollouts.c.id == before).scalar_subquery()
        statement = statement.where(key < tuple_(last, before))
    newest = statement.order_by(rollouts.c.created_at.desc(), rollouts.c.id.desc()).limit(PAGE + 1)
    found = list(await connection.execute(newest))
    shown = found[:PAGE]
    rows = await _with_counts(connection, shown)
    return RolloutList(rows, shown[-1].id if len(found) > PAGE else None)


async def _with_counts(connection: AsyncConnection, rows: Sequence[Row[Any]]) -> tuple[RolloutRow, ...]:
    table = rollout_devices.c
    statement = (
        select(table.rollout_id, table.state, func.count())
        .where(table.rollout_id.in_([row.id for row in rows]))
        .group_by(table.rollout_id, table.state)
    )
    counts: dict[str, dict[str, int]] = {}
    for row in await connection.execute(statement):
        counts.setdefault(row.rollout_id, {})[row.state] = row[2]
    return tuple(RolloutRow(row, in_order(counts.get(row.id, {}))) for row in rows)


def in_order(counts: Mapping[str, int]) -> dict[str, int]:
    """Give the states that have devices, as in :data:`STATES`."""
    return {state.value: counts[state] for state in STATES if counts.get(state)}


# --- one rollout


@dataclass(frozen=True, slots=True)
class ShownWave:
    """One wave; one that was not released has no times."""

    number: int
    rules: Wave
    counts: Mapping[str, int]
    needed_share: float
    """Of its devices that must commit before the next wave."""
    soak_s: float
    released_at: float | None
    reached_at: float | None

    @property
    def devices(self) -> int:
        return sum(self.counts.values())


@dataclass(frozen=True, slots=True)
class Failed:
    """Devices that failed, or were left out, for the same reason."""

    state: str
    reason: str
    devices: int


@dataclass(frozen=True, slots=True)
class ShownRollout:
    """All that the page of a rollout shows."""

    rollout: records.Rollout
    counts: Mapping[str, int]
    under_way: Mapping[str, int]
    """Devices that are assigned, by what they reported; ``""``: nothing yet."""
    waves: tuple[ShownWave, ...]
    in_no_wave: Mapping[str, int]
    forgiven: int
    readings: tuple[Reading, ...]
    """Of the current wave's gates."""
    reasons: tuple[Failed, ...]
    failures: tuple[Row[Any], ...]
    """The last devices that failed: device, name, presence, wave, reason, detail, ended_at."""

    @property
    def devices(self) -> int:
        return sum(self.counts.values())

    @property
    def is_open(self) -> bool:
        return self.rollout.state not in ENDED

    @property
    def asks_gates(self) -> bool:
        rules = self.rollout.policy.gates
        return rules.compares or rules.selftest_failed_share is not None


async def rollout_view(connection: AsyncConnection, rollout_id: str, now: float) -> ShownRollout | None:
    """Read a rollout; ``None``: there is none."""
    rollout = await records.find(connection, rollout_id)
    if rollout is None:
        return None
    counted = await records.count(connection, rollout_id)
    by_wave = {wave: _by_state(counts) for wave, counts in counted.items()}
    whole: dict[str, int] = {}
    for counts in by_wave.values():
        for state, number in counts.items():
            whole[state] = whole.get(state, 0) + number
    readings: tuple[Reading, ...] = ()
    if rollout.state not in (*ENDED, RolloutState.ABORTING):
        readings = await gates.current(connection, rollout, counted.get(rollout.wave, Counts()), now)
    return ShownRollout(
        rollout,
        in_order(whole),
        await records.progress(connection, rollout),
        await _waves(connection, rollout, by_wave),
        by_wave.get(None, {}),
        sum(counts.forgiven for counts in counted.values()),
        readings,
        await _reasons(connection, rollout_id),
        await _failures(connection, rollout_id, now),
    )


def _by_state(counts: Counts) -> dict[str, int]:
    return in_order(
        {
            DeviceState.SUCCEEDED: counts.succeeded,
            DeviceState.FAILED: counts.failed + counts.forgiven,
            DeviceState.ASSIGNED: counts.assigned,
            DeviceState.HELD: counts.held,
            DeviceState.WAITING: counts.waiting,
            DeviceState.SKIPPED: counts.skipped,
            DeviceState.CANCELLED: counts.cancelled,
        }
    )


async def _waves(
    connection: AsyncConnection, rollout: records.Rollout, by_wave: Mapping[int | None, Mapping[str, int]]
) -> tuple[ShownWave, ...]:
    policy = rollout.policy
    statement = select(rollout_waves).where(rollout_waves.c.rollout_id == rollout.id)
    released = {row.wave: row for row in await connection.execute(statement)}
    return tuple(
        ShownWave(
            number,
            rules,
            by_wave.get(number, {}),
            policy.success_threshold if rules.success_threshold is None else rules.success_threshold,
            policy.soak_s if rules.soak_s is None else rules.soak_s,
            released[number].released_at if number in released else None,
            released[number].reached_at if number in released else None,
        )
        for number, rules in enumerate(policy.waves, 1)
    )


async def _reasons(connection: AsyncConnection, rollout_id: str) -> tuple[Failed, ...]:
    table = rollout_devices.c
    number = func.count().label("number")
    statement = (
        select(table.state, table.reason, number)
        .where(table.rollout_id == rollout_id, _ended_badly())
        .group_by(table.state, table.reason)
        .order_by(table.state, number.desc(), table.reason)
        .limit(_REASONS)
    )
    return tuple(
        Failed(row.state, row.reason or "unknown", row.number) for row in await connection.execute(statement)
    )


def _ended_badly() -> Any:
    table = rollout_devices.c
    return or_(table.state == DeviceState.FAILED.value, table.state == DeviceState.SKIPPED.value)


async def _failures(connection: AsyncConnection, rollout_id: str, now: float) -> tuple[Row[Any], ...]:
    table = rollout_devices.c
    columns = (table.device_id, table.wave, table.reason, table.detail, table.ended_at, table.forgiven)
    statement = (
        select(*columns, devices.c.name, presence(now).label("presence"))
        .join(devices, devices.c.id == table.device_id)
        .where(table.rollout_id == rollout_id, table.state == DeviceState.FAILED.value)
        .order_by(table.ended_at.desc(), table.device_id)
        .limit(_FAILURES)
    )
    return tuple(await connection.execute(statement))
