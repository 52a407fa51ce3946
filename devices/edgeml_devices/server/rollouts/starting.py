"""Takes devices under way as far as there are places, and holds them outside of maintenance windows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Row,
    Select,
    and_,
    bindparam,
    case,
    exists,
    func,
    literal,
    or_,
    select,
    true,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeml_devices.server import audit
from edgeml_devices.server.database import pieces
from edgeml_devices.server.fleet import desired
from edgeml_devices.server.rollouts import windows
from edgeml_devices.server.rollouts.claims import Other, Skip, Take, There, Waiting, claim
from edgeml_devices.server.rollouts.engine import (
    BATCH,
    SWITCHED,
    Candidate,
    Places,
    Settled,
    free_places,
    take,
)
from edgeml_devices.server.rollouts.fit import Fit
from edgeml_devices.server.rollouts.outcomes import is_ours, write
from edgeml_devices.server.rollouts.policy import UNDER_WAY, DeviceState, Policy, RolloutState
from edgeml_devices.server.rollouts.records import Rollout
from edgeml_devices.server.rollouts.tables import rollout_devices, rollouts
from edgeml_devices.server.tables import assignments, devices, events, statuses
from edgeml_devices.server.transaction import Transaction

_mine, _now, _said = rollout_devices.c, assignments.c, statuses.c
_UNDER_WAY: Final = [state.value for state in UNDER_WAY]


async def fill_places(tx: Transaction, rollout: Rollout, fit: Fit, now: float, *, is_open: bool) -> bool:
    """Take devices that wait; say whether there may be more to do at once.

    While the window is open, those that were held go first. While it is closed, devices are assigned to be
    fetched and tested, and those that have not switched are held.
    """
    if not is_open:
        back = await hold_back(tx, rollout, now)
        taken = await _take_waiting(tx, rollout, fit, Places(BATCH), now, hold=True)
        return back or taken
    places = await _places(tx.connection, rollout)
    released = await _release_holds(tx, rollout, places, now)
    if released:
        places = await _places(tx.connection, rollout)
    taken = await _take_waiting(tx, rollout, fit, places, now, hold=False)
    return taken or released == BATCH


async def _places(connection: AsyncConnection, rollout: Rollout) -> Places:
    assigned = _mine.state == DeviceState.ASSIGNED.value
    policy, by_site = rollout.policy, {}
    if policy.budget is not None:
        site = _site(policy)
        statement = (
            select(site.label("site"), func.count(func.distinct(_mine.device_id)).label("number"))
            .join(devices, devices.c.id == _mine.device_id)
            .where(assigned)
            .group_by(site)
        )
        by_site = {row.site: row.number for row in await connection.execute(statement)}
    used = 0
    if policy.max_concurrent is not None:
        own = select(func.count()).where(_mine.rollout_id == rollout.id, assigned)
        used = (await connection.execute(own)).scalar_one()
    return free_places(policy, used, by_site)


def _site(policy: Policy) -> ColumnElement[str]:
    if policy.budget is None:
        return literal("")
    return func.coalesce(devices.c.labels[policy.budget.group_by].as_string(), "")


def _not_full(policy: Policy, places: Places) -> ColumnElement[bool]:
    full = places.full_sites()
    return _site(policy).not_in(full) if full else true()


# --- those that wait


async def _take_waiting(
    tx: Transaction, rollout: Rollout, fit: Fit, places: Places, now: float, *, hold: bool
) -> bool:
    if places.total == 0:
        return False
    statement = (
        select(_mine.device_id)
        .join(devices, devices.c.id == _mine.device_id)
        .where(
            _mine.rollout_id == rollout.id,
            _mine.state == DeviceState.WAITING.value,
            _mine.wave <= rollout.wave,
            ~_must_wait(rollout),
            _not_full(rollout.policy, places),
        )
        .order_by(_mine.wave, _mine.place)
        .limit(BATCH)
    )
    ids = list((await tx.connection.execute(statement)).scalars())
    if not ids:
        return False
    waiting = await _look_at(tx, rollout, fit, ids)
    skipped, takes = [], {}
    for device in waiting:
        decision = claim(
            device,
            rollout_id=rollout.id,
            rank=rollout.rank,
            release=rollout.policy.release,
            started_at=rollout.started_at or now,
            now=now,
        )
        if isinstance(decision, Skip):
            skipped.append(Settled(device.device_id, DeviceState.SKIPPED, decision.reason, decision.detail))
        elif isinstance(decision, Take):
            takes[device.device_id] = decision
    await write(tx, rollout, skipped, now)
    chosen = take([Candidate(one.device_id, one.site) for one in waiting if one.device_id in takes], places)
    by_id = {one.device_id: one for one in waiting}
    await _assign(tx, rollout, [(by_id[one], takes[one].attempt) for one in chosen], now, hold=hold)
    return len(ids) == BATCH and bool(chosen or skipped)


def _must_wait(rollout: Rollout) -> ColumnElement[bool]:
    """Say in SQL what :func:`claim` answers with ``None``: those who must wait keep nobody else waiting."""
    other, theirs = rollouts.alias("other"), rollout_devices.alias("theirs")
    goes_first = or_(
        other.c.priority > rollout.policy.priority,
        and_(other.c.priority == rollout.policy.priority, other.c.created_at > rollout.created_at),
    )
    return exists().where(
        _now.device_id == _mine.device_id,
        _now.model == rollout.policy.model,
        other.c.id == _now.rollout_id,
        other.c.id != rollout.id,
        other.c.state == RolloutState.RUNNING.value,
        goes_first,
        theirs.c.rollout_id == other.c.id,
        theirs.c.device_id == _mine.device_id,
        theirs.c.state.in_(_UNDER_WAY),
    )


async def _look_at(tx: Transaction, rollout: Rollout, fit: Fit, ids: Sequence[str]) -> list[Waiting]:
    """Lock devices, then read what is asked of them: nobody assigns them anything in between."""
    found: dict[str, Waiting] = {}
    # all locks first and in one order, so that no two transactions wait for each other
    for piece in pieces(sorted(ids)):
        locked = select(devices.c.id).where(devices.c.id.in_(piece)).order_by(devices.c.id).with_for_update()
        await tx.connection.execute(locked)
    for piece in pieces(sorted(ids)):
        tried = await _tried(tx.connection, rollout, piece)
        for row in await tx.connection.execute(_waiting(rollout, piece)):
            found[row.id] = _read_waiting(rollout, fit, row, tried.get(row.id, 0))
    return [found[one] for one in ids if one in found]


def _waiting(rollout: Rollout, ids: Iterable[str]) -> Select[Any]:
    other, theirs = rollouts.alias("other"), rollout_devices.alias("theirs")
    return (
        select(
            devices.c.id,
            devices.c.facts,
            devices.c.retired_at,
            devices.c.penalty_until,
            _site(rollout.policy).label("site"),
            _said.running,
            _now.device_id.label("has_assignment"),
            _now.release,
            _now.attempt,
            _now.hold,
            _now.on_abort,
            _now.rollout_id,
            _now.changed_at,
            _now.open_until,
            other.c.priority,
            other.c.created_at,
            other.c.state,
            theirs.c.state.label("device_state"),
        )
        .select_from(devices)
        .join(
            assignments,
            and_(_now.device_id == devices.c.id, _now.model == rollout.policy.model),
            isouter=True,
        )
        .join(
            statuses, and_(_said.device_id == devices.c.id, _said.model == rollout.policy.model), isouter=True
        )
        .join(other, other.c.id == _now.rollout_id, isouter=True)
        .join(
            theirs,
            and_(theirs.c.rollout_id == other.c.id, theirs.c.device_id == devices.c.id),
            isouter=True,
        )
        .where(devices.c.id.in_(list(ids)))
    )


def _read_waiting(rollout: Rollout, fit: Fit, row: Row[Any], tried: int) -> Waiting:
    there = None
    if row.has_assignment is not None:
        there = There(
            row.release, row.attempt, row.hold, row.on_abort, row.rollout_id, row.changed_at, row.open_until
        )
        if there.release == rollout.policy.release:
            tried = max(tried, there.attempt)
    other = None
    if row.state is not None:
        device_state = None if row.device_state is None else DeviceState(row.device_state)
        rank = (row.priority, row.created_at, row.rollout_id)
        other = Other(rank, RolloutState(row.state), device_state)
    return Waiting(
        row.id,
        row.facts,
        row.retired_at is not None,
        row.penalty_until,
        row.running,
        there,
        other,
        fit.of(row.facts).unfit,
        row.site,
        tried,
    )


async def _tried(connection: AsyncConnection, rollout: Rollout, ids: Sequence[str]) -> dict[str, int]:
    """Give the highest attempt at this release in statuses, history and rollouts."""
    model, release = rollout.policy.model, rollout.policy.release
    own, others = rollout_devices, rollouts
    queries = (
        select(_said.device_id, func.max(_said.attempt).label("attempt"))
        .where(_said.device_id.in_(ids), _said.model == model, _said.target == release)
        .group_by(_said.device_id),
        select(events.c.device_id, func.max(events.c.attempt).label("attempt"))
        .where(events.c.device_id.in_(ids), events.c.model == model, events.c.release == release)
        .group_by(events.c.device_id),
        select(own.c.device_id, func.max(own.c.attempt).label("attempt"))
        .join(others, others.c.id == own.c.rollout_id)
        .where(own.c.device_id.in_(ids), others.c.model == model, others.c.release == release)
        .group_by(own.c.device_id),
    )
    found: dict[str, int] = {}
    for query in queries:
        for row in await connection.execute(query):
            found[row.device_id] = max(found.get(row.device_id, 0), row.attempt or 0)
    return found


async def _assign(
    tx: Transaction, rollout: Rollout, chosen: Sequence[tuple[Waiting, int]], now: float, *, hold: bool
) -> None:
    if not chosen:
        return
    by_attempt: dict[int, list[str]] = {}
    for device, attempt in chosen:
        by_attempt.setdefault(attempt, []).append(device.device_id)
    # a retried device's assignment is this rollout's own, which is nothing to go back to
    first = [device for device, _ in chosen if device.there is None or device.there.rollout != rollout.id]
    if first:
        await tx.connection.execute(
            update(rollout_devices)
            .where(_mine.rollout_id == rollout.id, _mine.device_id == bindparam("device"))
            .values(former=bindparam("had"), ran=bindparam("running")),
            [
                {
                    "device": device.device_id,
                    "had": None if device.there is None else asdict(device.there),
                    "running": device.running,
                }
                for device in first
            ],
        )
    state = DeviceState.HELD if hold else DeviceState.ASSIGNED
    for attempt, ids in sorted(by_attempt.items()):
        for piece in pieces(ids):
            await tx.connection.execute(
                update(rollout_devices)
                .where(_mine.rollout_id == rollout.id, _mine.device_id.in_(piece))
                .values(state=state.value, attempt=attempt, assigned_at=now)
            )
    await _set(tx, rollout, by_attempt, now, hold=hold)
    detail = {"wave": rollout.wave, "hold": hold, "devices": [device.device_id for device, _ in chosen]}
    await audit.record(tx, "server", "rollout.assign", rollout.id, detail)


async def _set(
    tx: Transaction, rollout: Rollout, by_attempt: Mapping[int, Sequence[str]], now: float, *, hold: bool
) -> None:
    policy = rollout.policy
    open_until = None if hold or not policy.windows else windows.next_change(policy, now)
    for attempt, ids in sorted(by_attempt.items()):
        await desired.assign(
            tx,
            ids,
            policy.model,
            release=policy.release,
            attempt=attempt,
            hold=hold,
            on_abort=policy.on_abort,
            rollout_id=rollout.id,
            open_until=open_until,
            now=now,
        )


# --- those that are held


async def _release_holds(tx: Transaction, rollout: Rollout, places: Places, now: float) -> int:
    """End holds, of those that are ready first; give how many."""
    if places.total == 0 or not rollout.policy.windows:
        return 0
    ready = case((and_(_said.ready, _said.target == rollout.policy.release), 0), else_=1)
    statement = (
        _held(rollout, DeviceState.HELD)
        .where(_not_full(rollout.policy, places))
        .order_by(ready, _mine.wave, _mine.place)
        .limit(BATCH)
    )
    rows = list(await tx.connection.execute(statement))
    chosen = set(take([Candidate(row.device_id, row.site) for row in rows], places))
    await _move(tx, rollout, [row for row in rows if row.device_id in chosen], now, hold=False)
    return len(chosen)


async def hold_back(tx: Transaction, rollout: Rollout, now: float) -> bool:
    """Hold devices that have not switched, now that the window has closed."""
    switched = and_(
        _said.device_id.is_not(None),
        _said.target == rollout.policy.release,
        _said.attempt == _mine.attempt,
        _said.state.in_([state.value for state in SWITCHED]),
    )
    statement = (
        _held(rollout, DeviceState.ASSIGNED)
        .where(~func.coalesce(switched, False))
        .order_by(_mine.device_id)
        .limit(BATCH)
    )
    rows = list(await tx.connection.execute(statement))
    await _move(tx, rollout, rows, now, hold=True)
    return len(rows) == BATCH


def _held(rollout: Rollout, state: DeviceState) -> Select[Any]:
    return (
        select(_mine.device_id, _mine.attempt, _site(rollout.policy).label("site"))
        .select_from(rollout_devices)
        .join(devices, devices.c.id == _mine.device_id)
        .join(assignments, and_(_now.device_id == _mine.device_id, _now.model == rollout.policy.model))
        .join(
            statuses,
            and_(_said.device_id == _mine.device_id, _said.model == rollout.policy.model),
            isouter=True,
        )
        .where(_mine.rollout_id == rollout.id, _mine.state == state.value, is_ours(rollout))
    )


async def _move(
    tx: Transaction, rollout: Rollout, rows: Sequence[Row[Any]], now: float, *, hold: bool
) -> None:
    if not rows:
        return
    by_attempt: dict[int, list[str]] = {}
    for row in rows:
        by_attempt.setdefault(row.attempt, []).append(row.device_id)
    state = DeviceState.HELD if hold else DeviceState.ASSIGNED
    ids = [row.device_id for row in rows]
    for piece in pieces(ids):
        await tx.connection.execute(
            update(rollout_devices)
            .where(_mine.rollout_id == rollout.id, _mine.device_id.in_(piece))
            .values(state=state.value, assigned_at=now)
        )
    await _set(tx, rollout, by_attempt, now, hold=hold)
    name = "rollout.hold" if hold else "rollout.release"
    await audit.record(tx, "server", name, rollout.id, {"devices": ids})
