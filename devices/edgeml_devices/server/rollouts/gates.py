"""Health gates: the new release against the old one, in the same period, on the same kind of machine.

Health rows are merged into one tally for each side and kind of machine as they come; a gate then reads a
few histograms, however large the fleet is. What is missing never passes.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import Row, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeml.errors import MessageError
from edgeml.health import MOST_CALLS
from edgeml.histogram import Histogram
from edgeml_devices.server.rollouts.alert_gates import read_alert_gates
from edgeml_devices.server.rollouts.engine import Counts, GateState, Reading
from edgeml_devices.server.rollouts.policy import DeviceState, Gates, Policy
from edgeml_devices.server.rollouts.records import Rollout
from edgeml_devices.server.rollouts.tables import (
    rollout_devices,
    rollout_tallies,
    rollout_waves,
    rollouts,
)
from edgeml_devices.server.tables import devices, health
from edgeml_devices.server.transaction import Transaction

_LOG = logging.getLogger(__name__)
NEW: Final = "new"
OLD: Final = "old"
BEFORE: Final = "before"
"""The old release in the periods of earlier waves: the control where no device is left on it."""
_ROWS: Final = 2000
"""Health rows merged in one tick."""
_SETTLED_S: Final = 1.0
"""Rows younger than this are left for the next tick: with several writers a lower id may come later."""
UNKNOWN: Final = "unknown"
"""Kind of a machine that has not said what it is."""


@dataclass(slots=True)
class Tally:
    """What devices of one kind did with one side's release."""

    calls: int = 0
    errors: int = 0
    latency: Histogram = field(default_factory=Histogram)

    def add(self, calls: int, errors: int, latency_counts: Mapping[str, int]) -> None:
        self.calls += calls
        self.errors += errors
        self.latency.merge(Histogram.from_json(latency_counts))


Tallies = dict[tuple[str, str], Tally]
"""By side and kind of machine."""


# --- reading


def read_gates(
    policy: Policy, tallies: Tallies, targets: Collection[str], counts: Counts
) -> tuple[Reading, ...]:
    """Read every gate that is asked for.

    Args:
        policy: of the rollout.
        tallies: of the current wave's period.
        targets: kinds of machines that have committed in the current wave; each has to have data.
        counts: of the current wave.
    """
    found = []
    for name, limit, value in (
        ("latency_p95_ratio", policy.gates.latency_p95_ratio, _latency_ratio),
        ("error_rate_difference", policy.gates.error_rate_difference, _error_difference),
    ):
        if limit is not None:
            each = [_compare(name, limit, value, policy, tallies, target) for target in sorted(targets)]
            none = Reading(name, GateState.MISSING, limit, None, "no device of the wave has committed")
            found.append(_worst(each) if each else none)
    if policy.gates.selftest_failed_share is not None:
        found.append(_selftests(policy, policy.gates.selftest_failed_share, counts))
    return tuple(found)


def _worst(readings: list[Reading]) -> Reading:
    order = (GateState.PASSED, GateState.MISSING, GateState.FAILED)
    return max(readings, key=lambda one: (order.index(one.state), one.value or 0.0))


def _compare(name: str, limit: float, value: Any, policy: Policy, tallies: Tallies, target: str) -> Reading:
    gates, release = policy.gates, policy.release
    new, old, period = _sides(gates, tallies, target)
    for side, tally in ((f"release {release}", new), ("the release before", old)):
        if tally.calls < gates.min_calls:
            detail = f"{target}: {tally.calls} calls of {side}, {gates.min_calls} are needed"
            return Reading(name, GateState.MISSING, limit, None, detail)
    measured: float | None = value(new, old)
    if measured is None:
        return Reading(name, GateState.MISSING, limit, None, f"{target}: no latencies")
    state = GateState.PASSED if measured <= limit else GateState.FAILED
    return Reading(name, state, limit, measured, f"{target}, {new.calls} against {old.calls} calls{period}")


def _sides(gates: Gates, tallies: Tallies, target: str) -> tuple[Tally, Tally, str]:
    none = Tally()
    new, old = tallies.get((NEW, target), none), tallies.get((OLD, target), none)
    before = tallies.get((BEFORE, target), none)
    if old.calls < gates.min_calls <= before.calls:
        return new, before, ", those of earlier waves' period"
    return new, old, ""


def _latency_ratio(new: Tally, old: Tally) -> float | None:
    ours, theirs = new.latency.quantile(0.95), old.latency.quantile(0.95)
    return None if ours is None or not theirs else ours / theirs


def _error_difference(new: Tally, old: Tally) -> float:
    return new.errors / new.calls - old.errors / old.calls


def _selftests(policy: Policy, limit: float, counts: Counts) -> Reading:
    sample = max(1, min(policy.min_sample, counts.counting))
    if counts.outcomes == 0:
        return Reading("selftest_failed_share", GateState.MISSING, limit, None, "no outcome yet")
    value = counts.selftest_failed / counts.outcomes
    detail = f"{counts.selftest_failed} of {counts.outcomes} devices"
    if value <= limit:
        return Reading("selftest_failed_share", GateState.PASSED, limit, value, detail)
    if counts.outcomes < sample:
        few = f"{detail}, {sample} outcomes are needed"
        return Reading("selftest_failed_share", GateState.MISSING, limit, None, few)
    return Reading("selftest_failed_share", GateState.FAILED, limit, value, detail)


# --- in the database


async def current(
    connection: AsyncConnection, rollout: Rollout, counts: Counts, now: float
) -> tuple[Reading, ...]:
    """Read the gates of the current wave; none, where it does not ask for any."""
    policy = rollout.policy
    if rollout.wave == 0 or not policy.waves[rollout.wave - 1].gates:
        return ()
    alerts = await read_alert_gates(connection, policy, await _released_at(connection, rollout), now)
    if not policy.gates.compares:
        return read_gates(policy, {}, (), counts) + alerts
    tallies, targets = await _tallies(connection, rollout.id), await _targets(connection, rollout)
    return read_gates(policy, tallies, targets, counts) + alerts


async def _released_at(connection: AsyncConnection, rollout: Rollout) -> float:
    """Give when the current wave began to be measured."""
    mine = rollout_waves.c.rollout_id == rollout.id, rollout_waves.c.wave == rollout.wave
    found = await connection.execute(select(rollout_waves.c.measured_from).where(*mine))
    return found.scalar() or 0.0


async def gather(tx: Transaction, rollout: Rollout, now: float) -> bool:
    """Merge health that came since the last tick; say whether there is more of it."""
    if not rollout.policy.gates.compares or rollout.wave == 0:
        return False
    rows = await _fresh(tx.connection, rollout, now)
    if not rows:
        return False
    tallies: Tallies = {}
    for row in rows:
        if row.counts:
            side = NEW if row.release == rollout.policy.release else OLD
            try:
                counts = _checked_counts(row)
            except MessageError as error:
                _LOG.warning("rollout %s: health row %d does not count: %s", rollout.id, row.id, error)
                continue
            tallies.setdefault((side, row.target or UNKNOWN), Tally()).add(row.calls, row.errors, counts)
    await _add(tx, rollout.id, tallies)
    await tx.connection.execute(
        update(rollouts).where(rollouts.c.id == rollout.id).values(health_id=rows[-1].id)
    )
    return len(rows) == _ROWS


def _checked_counts(row: Row[Any]) -> dict[str, int]:
    """Give a row's latencies; one that cannot be must not stop the rollout, nor swell its tallies."""
    if not 0 <= row.errors <= row.calls <= MOST_CALLS or not isinstance(row.latency_counts, dict):
        raise MessageError(f"{row.errors} errors in {row.calls} calls cannot be")
    latency = Histogram.from_json(row.latency_counts)
    if latency.total > row.calls:
        raise MessageError(f"{latency.total} latencies of {row.calls} calls")
    return latency.to_json()


async def begin_period(tx: Transaction, rollout_id: str, *, keep_control: bool) -> None:
    """Start to count anew: a wave was released, or the rollout resumed."""
    if keep_control:
        tallies = await _tallies(tx.connection, rollout_id)
        olds = {(BEFORE, target): tally for (side, target), tally in tallies.items() if side == OLD}
        await _add(tx, rollout_id, olds)
    mine = rollout_tallies.c.rollout_id == rollout_id
    await tx.connection.execute(delete(rollout_tallies).where(mine, rollout_tallies.c.side.in_([NEW, OLD])))
    newest = select(func.coalesce(func.max(health.c.id), 0)).scalar_subquery()
    await tx.connection.execute(update(rollouts).where(rollouts.c.id == rollout_id).values(health_id=newest))


async def _fresh(connection: AsyncConnection, rollout: Rollout, now: float) -> list[Row[Any]]:
    """Give health rows behind the last one read, up to the first that may still get a neighbour."""
    unsettled = (
        select(func.min(health.c.id))
        .where(health.c.id > rollout.health_id, health.c.received_at > now - _SETTLED_S)
        .scalar_subquery()
    )
    mine, wave = rollout_devices, rollout_waves
    statement = (
        select(
            health.c.id,
            health.c.release,
            health.c.calls,
            health.c.errors,
            health.c.latency_counts,
            devices.c.facts[("target", "name")].as_string().label("target"),
            (mine.c.device_id.is_not(None) & (health.c.at >= wave.c.measured_from)).label("counts"),
        )
        .join(devices, devices.c.id == health.c.device_id)
        .join(wave, (wave.c.rollout_id == rollout.id) & (wave.c.wave == rollout.wave))
        .join(
            mine,
            (mine.c.rollout_id == rollout.id) & (mine.c.device_id == health.c.device_id),
            isouter=True,
        )
        .where(
            health.c.id > rollout.health_id,
            health.c.model == rollout.policy.model,
            health.c.id < func.coalesce(unsettled, health.c.id + 1),
        )
        .order_by(health.c.id)
        .limit(_ROWS)
    )
    return list(await connection.execute(statement))


async def _tallies(connection: AsyncConnection, rollout_id: str) -> Tallies:
    statement = select(rollout_tallies).where(rollout_tallies.c.rollout_id == rollout_id)
    return {
        (row.side, row.target): Tally(row.calls, row.errors, Histogram.from_json(row.latency_counts))
        for row in await connection.execute(statement)
    }


async def _add(tx: Transaction, rollout_id: str, tallies: Tallies) -> None:
    stored = await _tallies(tx.connection, rollout_id)
    for (side, target), tally in sorted(tallies.items(), key=lambda one: one[0]):
        there = stored.get((side, target))
        key = {"rollout_id": rollout_id, "side": side, "target": target}
        whole = Tally() if there is None else there
        whole.add(tally.calls, tally.errors, tally.latency.to_json())
        values = {
            "calls": whole.calls,
            "errors": whole.errors,
            "latency_counts": whole.latency.to_json(),
        }
        if there is None:
            await tx.connection.execute(insert(rollout_tallies).values(key | values))
        else:
            same = [rollout_tallies.c[name] == value for name, value in key.items()]
            await tx.connection.execute(update(rollout_tallies).where(*same).values(values))


async def _targets(connection: AsyncConnection, rollout: Rollout) -> set[str]:
    """Give the kinds of machines that have committed in the current wave."""
    name = devices.c.facts[("target", "name")].as_string()
    statement = (
        select(name.label("target"))
        .join(rollout_devices, rollout_devices.c.device_id == devices.c.id)
        .where(
            rollout_devices.c.rollout_id == rollout.id,
            rollout_devices.c.state == DeviceState.SUCCEEDED.value,
            rollout_devices.c.wave == rollout.wave,
        )
        .distinct()
    )
    return {row.target or UNKNOWN for row in await connection.execute(statement)}
