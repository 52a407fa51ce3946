"""Ends a rollout: what each device that is under way gets instead."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Row, func, select, update

from edgeml_devices.server.database import pieces
from edgeml_devices.server.fleet import desired
from edgeml_devices.server.rollouts.engine import ABORT_PATIENCE_S, BATCH, DeviceView, Settled, has_switched
from edgeml_devices.server.rollouts.outcomes import is_ours, settle_devices, under_way, view_of, write
from edgeml_devices.server.rollouts.policy import UNDER_WAY, DeviceState, RolloutState
from edgeml_devices.server.rollouts.records import Rollout
from edgeml_devices.server.rollouts.tables import rollout_devices, rollouts
from edgeml_devices.server.tables import releases
from edgeml_devices.server.transaction import Transaction

_mine = rollout_devices.c
_FORMER: Final = ("release", "attempt", "hold", "on_abort", "rollout", "open_until")
_UNDER_WAY: Final = [state.value for state in UNDER_WAY]
_STOPPED: Final = [RolloutState.DENIED.value, RolloutState.ABORTING.value, RolloutState.ABORTED.value]


@dataclass(frozen=True, slots=True)
class _Refused:
    """What no device gets back."""

    rollouts: Collection[str]
    """Ids of those that were stopped."""
    releases: Collection[int]
    """Of the model, those withdrawn."""


async def abort_step(
    tx: Transaction, rollout: Rollout, now: float, listening_since: float
) -> tuple[bool, bool]:
    """Do a piece of an abort; say whether it is done, and whether there is more to do at once.

    Devices that wait are cancelled. Those before SWITCHING get back what was assigned before. Those behind
    it finish, or go back to what they ran, as ``on_abort`` says. An abort waits for those that finish,
    but not for ever.
    """
    await _cancel_waiting(tx, rollout, now)
    if await settle_devices(tx, rollout, now, listening_since):
        return False, True
    dropped = await _drop(tx, rollout, now)
    left = await _left(tx, rollout)
    if left and now - rollout.changed_at >= ABORT_PATIENCE_S:
        await _give_up(tx, rollout, now)
        left = 0
    return left == 0, dropped == BATCH


async def finish_early(tx: Transaction, rollout: Rollout, now: float) -> None:
    """End a rollout although devices have no outcome: those assigned keep their assignment, as a wish."""
    await tx.connection.execute(
        update(rollout_devices)
        .where(_mine.rollout_id == rollout.id, _mine.state == DeviceState.WAITING.value)
        .values(state=DeviceState.SKIPPED.value, reason="finished", ended_at=now)
    )
    held = under_way(rollout).where(_mine.state == DeviceState.HELD.value, is_ours(rollout))
    await _give_back(tx, rollout, list(await tx.connection.execute(held)), now)
    await tx.connection.execute(
        update(rollout_devices)
        .where(_mine.rollout_id == rollout.id, _mine.state.in_(_UNDER_WAY))
        .values(state=DeviceState.SKIPPED.value, reason="finished", ended_at=now)
    )


async def _cancel_waiting(tx: Transaction, rollout: Rollout, now: float) -> None:
    await tx.connection.execute(
        update(rollout_devices)
        .where(_mine.rollout_id == rollout.id, _mine.state == DeviceState.WAITING.value)
        .values(state=DeviceState.CANCELLED.value, reason="aborted", ended_at=now)
    )


async def _drop(tx: Transaction, rollout: Rollout, now: float) -> int:
    """Give devices what they had; those that are to finish are left alone."""
    statement = under_way(rollout).where(_mine.state.in_(_UNDER_WAY)).order_by(_mine.device_id)
    rows = list(await tx.connection.execute(statement))
    going_back = [
        row
        for row in rows
        if rollout.policy.on_abort == "rollback" or not has_switched(view_of(rollout, row))
    ][:BATCH]
    await _give_back(tx, rollout, going_back, now)
    return len(going_back)


async def _give_back(tx: Transaction, rollout: Rollout, rows: list[Row[Any]], now: float) -> None:
    refused = await _refused(tx, rollout, rows)
    groups: dict[tuple[Any, ...] | None, list[str]] = {}
    settled = []
    for row in rows:
        target, why = _instead(rollout, row, view_of(rollout, row), refused)
        groups.setdefault(target, []).append(row.device_id)
        settled.append(Settled(row.device_id, DeviceState.CANCELLED, "aborted", _told(target) + why))
    for target, ids in groups.items():
        if target is None:
            await desired.unassign(tx, ids, rollout.policy.model)
            continue
        release, attempt, hold, on_abort, rollout_id, open_until = target
        await desired.assign(
            tx,
            ids,
            rollout.policy.model,
            release=release,
            attempt=attempt,
            hold=hold,
            on_abort=on_abort,
            rollout_id=rollout_id,
            open_until=open_until,
            now=now,
        )
    await write(tx, rollout, settled, now)


async def _refused(tx: Transaction, rollout: Rollout, rows: list[Row[Any]]) -> _Refused:
    model = rollout.policy.model
    withdrawn = select(releases.c.release).where(
        releases.c.model == model, releases.c.withdrawn_at.is_not(None)
    )
    formers = {row.former["rollout"] for row in rows if row.former is not None}
    stopped: set[str] = set()
    for ids in pieces(sorted(formers - {None})):
        statement = select(rollouts.c.id).where(rollouts.c.id.in_(ids), rollouts.c.state.in_(_STOPPED))
        stopped.update((await tx.connection.execute(statement)).scalars())
    return _Refused(stopped, set((await tx.connection.execute(withdrawn)).scalars()))


def _instead(
    rollout: Rollout, row: Row[Any], view: DeviceView, refused: _Refused
) -> tuple[tuple[Any, ...] | None, str]:
    """Give what the assignment that comes instead has, in the order of ``_FORMER``, and why it is another.

    What a rollout that was stopped had assigned, or a release that was withdrawn, does not come back: the
    device keeps what it runs. ``None``: nothing is said about the model.
    """
    former: Mapping[str, Any] | None = row.former
    if has_switched(view) and rollout.policy.on_abort == "rollback":
        if row.ran in refused.releases:
            return None, f": release {row.ran}, which it ran before, was withdrawn"
        attempt = former["attempt"] if former is not None and former["release"] == row.ran else 1
        return (row.ran, attempt, False, "rollback", None, None), ""
    if former is None:
        return None, ""
    if former["release"] in refused.releases:
        why = f": release {former['release']}, assigned before, was withdrawn"
    elif former["rollout"] in refused.rollouts:
        why = f": rollout {former['rollout']}, which had assigned it before, was stopped"
    else:
        return tuple(former[name] for name in _FORMER), ""
    running = row.ran if view.status is None else view.status.running
    if running is None or running in refused.releases:
        return None, why
    attempt = former["attempt"] if former["release"] == running else 1
    return (running, attempt, False, "finish", None, None), why


def _told(target: tuple[Any, ...] | None) -> str:
    if target is None:
        return "nothing is assigned"
    return "to be removed" if target[0] is None else f"assigned release {target[0]} instead"


async def _left(tx: Transaction, rollout: Rollout) -> int:
    statement = select(func.count()).where(_mine.rollout_id == rollout.id, _mine.state.in_(_UNDER_WAY))
    return int((await tx.connection.execute(statement)).scalar_one())


async def _give_up(tx: Transaction, rollout: Rollout, now: float) -> None:
    """Wait no longer for devices that have switched and say nothing; what they run stays assigned."""
    rows = await tx.connection.execute(under_way(rollout).where(_mine.state.in_(_UNDER_WAY)))
    settled = [Settled(row.device_id, DeviceState.CANCELLED, "no_answer") for row in rows]
    await write(tx, rollout, settled, now)
