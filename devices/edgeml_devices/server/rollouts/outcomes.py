"""Settles devices under way: reads those of whom something can be said, and writes down how they ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, and_, false, func, insert, or_, select, update

from edgeml_devices.server import audit
from edgeml_devices.server.database import pieces
from edgeml_devices.server.rollouts.engine import (
    BATCH,
    Assigned,
    DeviceView,
    Settled,
    Status,
    settle,
)
from edgeml_devices.server.rollouts.policy import UNDER_WAY, DeviceState
from edgeml_devices.server.rollouts.records import Rollout
from edgeml_devices.server.rollouts.tables import rollout_devices, rollout_failures
from edgeml_devices.server.tables import assignments, devices, events, statuses
from edgeml_devices.server.transaction import Transaction

_mine, _now, _said = rollout_devices.c, assignments.c, statuses.c


async def settle_devices(tx: Transaction, rollout: Rollout, now: float, listening_since: float) -> bool:
    """Write down the outcomes that are there; say whether there may be more of them.

    Args:
        tx: the transaction.
        rollout: locked.
        now: Unix seconds.
        listening_since: from when on this process would have heard of devices, Unix seconds.
    """
    silent_before = _silent_before(rollout, now, listening_since)
    rows = list(await tx.connection.execute(_to_settle(rollout, silent_before)))
    views = [view_of(rollout, row, silent_before) for row in rows]
    told = await _told(tx, rollout, [one for one in views if one.assigned != _ours(one)])
    settled = []
    for view in views:
        outcome = settle(_with(view, told.get(view.device_id)))
        if outcome is not None:
            settled.append(outcome)
    await write(tx, rollout, settled, now)
    attempts = {view.device_id: view.attempt for view in views}
    await _note_failures(
        tx, rollout, [one for one in settled if one.state is DeviceState.FAILED], attempts, now
    )
    return len(rows) == BATCH


def under_way(rollout: Rollout) -> Select[Any]:
    """Give the query for a rollout's devices with what is assigned and reported, for :func:`view_of`."""
    return (
        select(
            _mine.device_id,
            _mine.state,
            _mine.attempt,
            _mine.assigned_at,
            _mine.former,
            _mine.ran,
            devices.c.retired_at,
            devices.c.last_seen,
            _now.device_id.label("has_assignment"),
            _now.rollout_id,
            _now.release,
            _now.attempt.label("assigned_attempt"),
            _said.state.label("said"),
            _said.running,
            _said.target,
            _said.attempt.label("said_attempt"),
            _said.result,
            _said.reason,
            _said.detail,
        )
        .select_from(rollout_devices)
        .join(devices, devices.c.id == _mine.device_id)
        .join(
            assignments,
            and_(_now.device_id == _mine.device_id, _now.model == rollout.policy.model),
            isouter=True,
        )
        .join(
            statuses,
            and_(_said.device_id == _mine.device_id, _said.model == rollout.policy.model),
            isouter=True,
        )
        .where(_mine.rollout_id == rollout.id)
    )


def view_of(rollout: Rollout, row: Row[Any], silent_before: float | None = None) -> DeviceView:
    """Read a row of :func:`under_way` for the engine.

    Args:
        rollout: of the device.
        row: what the query gave.
        silent_before: a device last heard of then or earlier is silent, Unix seconds; ``None``: none is.
    """
    assigned = Assigned(row.rollout_id, row.release, row.assigned_attempt) if row.has_assignment else None
    status = None
    if row.said is not None:
        status = Status(
            row.said, row.running, row.target, row.said_attempt, row.result, row.reason, row.detail
        )
    heard_at = max(row.last_seen or 0.0, row.assigned_at or 0.0)
    return DeviceView(
        row.device_id,
        DeviceState(row.state),
        rollout.id,
        rollout.policy.release,
        row.attempt,
        row.retired_at is not None,
        silent_before is not None and heard_at <= silent_before,
        assigned,
        status,
    )


def is_ours(rollout: Rollout) -> ColumnElement[bool]:
    """Say in SQL that the assignment which is there is this rollout's."""
    return and_(
        _now.device_id.is_not(None),
        func.coalesce(_now.rollout_id, "") == rollout.id,
        func.coalesce(_now.release, -1) == rollout.policy.release,
        _now.attempt == _mine.attempt,
    )


def _silent_before(rollout: Rollout, now: float, listening_since: float) -> float | None:
    """Give what :func:`view_of` takes: no device was silent while nobody listened, or the rollout stood."""
    long_ago = now - rollout.policy.silent_after_s
    return long_ago if max(listening_since, rollout.changed_at) <= long_ago else None


def _to_settle(rollout: Rollout, silent_before: float | None) -> Select[Any]:
    """Choose those that may have an outcome, and those that committed and may have fallen back."""
    ended = and_(
        _said.target == rollout.policy.release, _said.attempt == _mine.attempt, _said.result.is_not(None)
    )
    silent: ColumnElement[bool] = false()
    if silent_before is not None:
        silent = and_(
            _mine.state == DeviceState.ASSIGNED.value,
            _mine.assigned_at <= silent_before,
            func.coalesce(devices.c.last_seen, 0.0) <= silent_before,
        )
    ours = func.coalesce(is_ours(rollout), False)
    going = and_(
        _mine.state.in_([state.value for state in UNDER_WAY]),
        or_(ended, devices.c.retired_at.is_not(None), ~ours, silent),
    )
    fell_back = and_(
        _mine.state == DeviceState.SUCCEEDED.value,
        devices.c.retired_at.is_(None),
        _said.device_id.is_not(None),
        ours,
        func.coalesce(_said.running, -1) != rollout.policy.release,
    )
    return under_way(rollout).where(or_(going, fell_back)).order_by(_mine.device_id).limit(BATCH)


def _ours(view: DeviceView) -> Assigned:
    return Assigned(view.rollout, view.release, view.attempt)


def _with(view: DeviceView, told: Status | None) -> DeviceView:
    return view if told is None else replace(view, told=told)


async def _told(tx: Transaction, rollout: Rollout, views: Sequence[DeviceView]) -> dict[str, Status]:
    """Look for the end of an attempt in the history: the next attempt may have overwritten the status."""
    found: dict[str, Status] = {}
    attempts = {view.device_id: view.attempt for view in views}
    for ids in pieces(sorted(attempts)):
        statement = (
            select(events)
            .where(
                events.c.device_id.in_(ids),
                events.c.model == rollout.policy.model,
                events.c.release == rollout.policy.release,
                events.c.result.is_not(None),
            )
            .order_by(events.c.id)
        )
        for row in await tx.connection.execute(statement):
            if row.attempt == attempts[row.device_id]:
                found[row.device_id] = Status(
                    row.state, row.release, row.release, row.attempt, row.result, row.reason, row.detail
                )
    return found


# --- writing down


async def write(tx: Transaction, rollout: Rollout, settled: Sequence[Settled], now: float) -> None:
    """Write outcomes, and that they were decided."""
    alike: dict[tuple[DeviceState, str | None, str], list[str]] = {}
    for one in settled:
        alike.setdefault((one.state, one.reason, one.detail), []).append(one.device_id)
    for (state, reason, detail), ids in alike.items():
        for piece in pieces(ids):
            await tx.connection.execute(
                update(rollout_devices)
                .where(_mine.rollout_id == rollout.id, _mine.device_id.in_(piece))
                .values(state=state.value, reason=reason, detail=detail, ended_at=now)
            )
        said = {"state": state.value, "reason": reason, "detail": detail, "devices": ids}
        await audit.record(tx, "server", "rollout.outcome", rollout.id, said)


async def _note_failures(
    tx: Transaction, rollout: Rollout, failed: Sequence[Settled], attempts: Mapping[str, int], now: float
) -> None:
    """Keep failures, and put a device that failed too often into the penalty box."""
    for piece in pieces(failed):
        rows = [
            {
                "rollout_id": rollout.id,
                "device_id": one.device_id,
                "attempt": attempts[one.device_id],
                "at": now,
                "reason": one.reason,
                "detail": one.detail,
                "pardoned": False,
            }
            for one in piece
        ]
        await tx.connection.execute(insert(rollout_failures), rows)
        await _penalise(tx, rollout, [one.device_id for one in piece], now)


async def _penalise(tx: Transaction, rollout: Rollout, ids: Sequence[str], now: float) -> None:
    penalty = rollout.policy.penalty
    if penalty is None:
        return
    statement = (
        select(rollout_failures.c.device_id)
        .where(
            rollout_failures.c.device_id.in_(ids),
            rollout_failures.c.at > now - penalty.period_s,
            ~rollout_failures.c.pardoned,
        )
        .group_by(rollout_failures.c.device_id)
        .having(func.count() >= penalty.failures)
    )
    found = sorted((await tx.connection.execute(statement)).scalars())
    if found:
        until = now + penalty.duration_s
        await tx.connection.execute(
            update(devices).where(devices.c.id.in_(found)).values(penalty_until=until)
        )
        await audit.record(
            tx, "server", "rollout.penalty", rollout.id, {"devices": found, "until": int(until)}
        )
