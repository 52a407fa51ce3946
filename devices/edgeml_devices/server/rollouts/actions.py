"""What operators do with a rollout: each in one transaction, under its lock, into the audit log."""

from __future__ import annotations

import secrets
import time
from collections.abc import Collection, Sequence
from typing import Any, Final, Protocol

from sqlalchemy import insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeml_devices.server import audit
from edgeml_devices.server.database import pieces
from edgeml_devices.server.fleet import selectors
from edgeml_devices.server.fleet.finding import find_device
from edgeml_devices.server.refusals import RefusalError
from edgeml_devices.server.rollouts import gates, members, records, stopping
from edgeml_devices.server.rollouts.policy import (
    ENDED,
    DeviceState,
    Policy,
    RolloutState,
    write_policy,
)
from edgeml_devices.server.rollouts.records import Rollout
from edgeml_devices.server.rollouts.tables import rollout_devices, rollout_failures, rollout_waves, rollouts
from edgeml_devices.server.tables import devices, groups, releases
from edgeml_devices.server.transaction import Transaction

_RETRIED: Final = ("incompatible", "penalty_box", "silent")
"""Reasons of devices that were skipped and may be tried again."""
_LONGEST_ID: Final = 32
_LIVE: Final = (RolloutState.RUNNING, RolloutState.PAUSED)


class Who(Protocol):
    """An :class:`edgeml_devices.server.auth.Actor`."""

    @property
    def id(self) -> str: ...


async def create(tx: Transaction, actor: Who, policy: Policy) -> str:
    """Keep a rollout; nothing moves before it is started.

    Raises:
        RefusalError: 404 no such group, 409 no such release, or a withdrawn one.
        UsageError: a selector that cannot be read.
    """
    await require_release(tx.connection, policy)
    selector = await group_selector(tx.connection, policy)
    rest = f"-{policy.release}-{secrets.token_hex(3)}"
    rollout_id = policy.model[: min(16, _LONGEST_ID - len(rest))] + rest
    state = RolloutState.WAITING_FOR_APPROVAL if policy.approval else RolloutState.READY
    now = time.time()
    await tx.connection.execute(
        insert(rollouts).values(
            id=rollout_id,
            model=policy.model,
            release=policy.release,
            policy=write_policy(policy),
            selector=selector,
            priority=policy.priority,
            state=state.value,
            reason="",
            created_at=now,
            created_by=str(actor),
            creator_id=actor.id,
            changed_at=now,
        )
    )
    await audit.record(tx, actor, "rollout.create", rollout_id, _without_floats(write_policy(policy)))
    return rollout_id


def _without_floats(value: Any) -> Any:
    """Give shares and times as texts: floats have no one spelling, and the audit log is hashed."""
    if isinstance(value, dict):
        return {name: _without_floats(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_without_floats(inner) for inner in value]
    return f"{value:g}" if isinstance(value, float) else value


async def require_release(connection: AsyncConnection, policy: Policy) -> None:
    """Refuse a release that is not listed, or was withdrawn."""
    statement = select(releases.c.withdrawn_at).where(
        releases.c.model == policy.model, releases.c.release == policy.release
    )
    row = (await connection.execute(statement)).first()
    if row is None:
        raise RefusalError(409, f"{policy.model}/{policy.release} is not published; edgeml releases list")
    if row.withdrawn_at is not None:
        raise RefusalError(409, f"{policy.model}/{policy.release} was withdrawn; roll out another release")


async def group_selector(connection: AsyncConnection, policy: Policy) -> str:
    """Give the selector of the devices, and have every selector of the policy read once."""
    for wave in policy.waves:
        selectors.parse(wave.selector or "")
    if policy.selector is not None:
        selectors.parse(policy.selector)
        return policy.selector
    statement = select(groups.c.selector).where(groups.c.name == policy.group)
    found = (await connection.execute(statement)).scalar()
    if found is None:
        raise RefusalError(404, f"no group {policy.group!r}; edgeml groups list")
    return str(found)


async def approve(tx: Transaction, actor: Who, rollout_id: str) -> None:
    """Allow a rollout to be started; whoever created it may not."""
    rollout = await _locked(tx, rollout_id, (RolloutState.WAITING_FOR_APPROVAL,), "approved")
    if rollout.creator_id == actor.id or rollout.created_by == str(actor):
        raise RefusalError(403, f"{rollout_id} needs the approval of somebody else than {rollout.created_by}")
    await tx.connection.execute(
        update(rollouts).where(rollouts.c.id == rollout_id).values(approved_by=str(actor))
    )
    await _to(tx, actor, rollout, RolloutState.READY, "rollout.approve", "")


async def deny(tx: Transaction, actor: Who, rollout_id: str, reason: str) -> None:
    """End a rollout before it began."""
    before = (RolloutState.WAITING_FOR_APPROVAL, RolloutState.READY)
    rollout = await _locked(tx, rollout_id, before, "denied")
    await _to(tx, actor, rollout, RolloutState.DENIED, "rollout.deny", reason or "denied")


async def start(tx: Transaction, actor: Who, rollout_id: str) -> None:
    """Write down which device is in which wave, and let the first wave begin."""
    rollout = await _locked(tx, rollout_id, (RolloutState.READY,), "started")
    await require_release(tx.connection, rollout.policy)
    number = await members.enlist(tx, rollout)
    if number == 0:
        raise RefusalError(409, f"{rollout_id}: no device matches {rollout.selector!r}")
    now = time.time()
    await tx.connection.execute(update(rollouts).where(rollouts.c.id == rollout_id).values(started_at=now))
    await _to(tx, actor, rollout, RolloutState.RUNNING, "rollout.start", "", {"devices": number})
    await members.release_wave(tx, rollout, 1, now, actor)


async def pause(tx: Transaction, actor: Who, rollout_id: str, reason: str) -> None:
    """Start no device any more; those under way go on."""
    rollout = await _locked(tx, rollout_id, (RolloutState.RUNNING,), "paused")
    await _to(tx, actor, rollout, RolloutState.PAUSED, "rollout.pause", reason or f"paused by {actor}")


async def resume(tx: Transaction, actor: Who, rollout_id: str) -> None:
    """Go on: failures so far are forgiven, and health counts anew."""
    rollout = await _locked(tx, rollout_id, (RolloutState.PAUSED,), "resumed")
    await require_release(tx.connection, rollout.policy)
    await _forgive(tx, rollout)
    await _to(tx, actor, rollout, RolloutState.RUNNING, "rollout.resume", "")


async def abort(tx: Transaction, actor: Who, rollout_id: str, reason: str) -> None:
    """End a rollout: devices before SWITCHING get back what they had."""
    before = (RolloutState.WAITING_FOR_APPROVAL, RolloutState.READY)
    rollout = await _locked(tx, rollout_id, (*before, *_LIVE), "aborted")
    state = RolloutState.ABORTED if rollout.state in before else RolloutState.ABORTING
    await _to(tx, actor, rollout, state, "rollout.abort", reason or f"aborted by {actor}")


async def advance(tx: Transaction, actor: Who, rollout_id: str) -> None:
    """Let the next wave begin whatever the thresholds and gates say; after the last, finish."""
    rollout = await _locked(tx, rollout_id, _LIVE, "moved on")
    await require_release(tx.connection, rollout.policy)
    now = time.time()
    if rollout.wave >= len(rollout.policy.waves):
        await stopping.finish_early(tx, rollout, now)
        await _to(tx, actor, rollout, RolloutState.FINISHED, "rollout.finish", f"finished by {actor}")
        return
    await _forgive(tx, rollout)
    if rollout.state is RolloutState.PAUSED:
        await _to(tx, actor, rollout, RolloutState.RUNNING, "rollout.resume", "")
    await members.release_wave(tx, rollout, rollout.wave + 1, now, actor)


async def retry(tx: Transaction, actor: Who, rollout_id: str, device_ids: Collection[str]) -> int:
    """Have devices that failed, or were skipped for what may have changed, tried again.

    Args:
        tx: the transaction.
        actor: who asks.
        rollout_id: of a rollout that has not ended.
        device_ids: ids or names; none: all.
    """
    rollout = await _locked(tx, rollout_id, _LIVE, "retried")
    mine = rollout_devices.c
    statement = (
        select(mine.device_id, devices.c.name)
        .join(devices, devices.c.id == mine.device_id)
        .where(
            mine.rollout_id == rollout_id,
            or_(
                mine.state == DeviceState.FAILED.value,
                (mine.state == DeviceState.SKIPPED.value) & mine.reason.in_(_RETRIED),
            ),
        )
        .order_by(mine.place)
    )
    rows = list(await tx.connection.execute(statement))
    wanted = set(device_ids)
    ids = [row.device_id for row in rows if not wanted or wanted & {row.device_id, row.name}]
    unknown = wanted - {one for row in rows for one in (row.device_id, row.name)}
    if unknown:
        named = ", ".join(sorted(unknown))
        raise RefusalError(409, f"{rollout_id}: nothing to retry on {named}: not failed, or not in it")
    for piece in pieces(ids):
        await members.requeue(tx, rollout, piece)
    await audit.record(tx, actor, "rollout.retry", rollout_id, {"devices": ids})
    return len(ids)


async def pardon(tx: Transaction, actor: Who, device: str) -> str:
    """Let a device out of the penalty box, and forget its failures; give its id."""
    device_id: str = (await find_device(tx.connection, device))["id"]
    await tx.connection.execute(update(devices).where(devices.c.id == device_id).values(penalty_until=None))
    await tx.connection.execute(
        update(rollout_failures).where(rollout_failures.c.device_id == device_id).values(pardoned=True)
    )
    await audit.record(tx, actor, "device.pardon", device_id)
    return device_id


async def _locked(tx: Transaction, rollout_id: str, states: Sequence[RolloutState], done: str) -> Rollout:
    rollout = await records.lock(tx, rollout_id)
    if rollout is None:
        raise RefusalError(404, f"no rollout {rollout_id!r}; edgeml rollout list")
    if rollout.state not in states:
        over = "; it has ended, make a new one" if rollout.state in ENDED else ""
        raise RefusalError(409, f"{rollout_id} is {rollout.state} and cannot be {done}{over}")
    return rollout


async def _forgive(tx: Transaction, rollout: Rollout) -> None:
    await tx.connection.execute(
        update(rollout_devices)
        .where(
            rollout_devices.c.rollout_id == rollout.id,
            rollout_devices.c.state == DeviceState.FAILED.value,
        )
        .values(forgiven=True)
    )
    await tx.connection.execute(
        update(rollout_waves)
        .where(rollout_waves.c.rollout_id == rollout.id, rollout_waves.c.wave == rollout.wave)
        .values(measured_from=time.time(), reached_at=None, data_missing_since=None)
    )
    await gates.begin_period(tx, rollout.id, keep_control=False)


async def _to(
    tx: Transaction,
    actor: Who,
    rollout: Rollout,
    state: RolloutState,
    action: str,
    reason: str,
    detail: dict[str, Any] | None = None,
) -> None:
    await records.set_state(tx, rollout, state, reason, time.time())
    said = {"reason": reason} if reason else {}
    await audit.record(tx, actor, action, rollout.id, said | (detail or {}))
