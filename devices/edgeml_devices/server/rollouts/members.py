"""Which devices take part in a rollout, and in which wave."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import CursorResult, and_, exists, func, insert, or_, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeml_devices.server import audit
from edgeml_devices.server.database import pieces
from edgeml_devices.server.fleet import selectors
from edgeml_devices.server.rollouts import gates
from edgeml_devices.server.rollouts.engine import BATCH, wave_sizes
from edgeml_devices.server.rollouts.policy import DeviceState, Policy
from edgeml_devices.server.rollouts.records import Rollout
from edgeml_devices.server.rollouts.tables import rollout_devices, rollout_waves, rollouts
from edgeml_devices.server.tables import assignments, devices
from edgeml_devices.server.transaction import Transaction

_NAMED = 50
"""Devices named in one row of the audit log; the count is whole."""


@dataclass(frozen=True, slots=True)
class Member:
    """A device of the group."""

    device_id: str
    place: int
    """In the order in which devices are taken: by a hash, so that no site or name comes first."""
    wave: int | None
    """From 1; ``None``: the waves end before all devices are in one."""


def place_of(policy: Policy, device_id: str) -> int:
    """Give a device's place among those of a release, the same in the plan and in the rollout."""
    digest = hashlib.sha256(f"{policy.model}/{policy.release} {device_id}".encode()).digest()
    return int.from_bytes(digest[:7], "big")


def divide(policy: Policy, group: Sequence[str], matching: Mapping[int, Sequence[str]]) -> tuple[Member, ...]:
    """Divide a group into waves, in the order of their places.

    Args:
        policy: with the waves.
        group: device ids.
        matching: by place of a wave with a selector, those of the group that match it.
    """
    wave_of: dict[str, int] = {}
    for place in sorted(matching):
        for one in matching[place]:
            wave_of.setdefault(one, place)
    matched = {place: sum(wave == place for wave in wave_of.values()) for place in matching}
    others = sorted((place_of(policy, one), one) for one in group if one not in wave_of)
    start = 0
    for place, size in enumerate(wave_sizes(policy, matched, len(group))):
        if policy.waves[place].selector is None:
            wave_of |= dict.fromkeys((one for _, one in others[start : start + size]), place)
            start += size
    return tuple(
        Member(one, place_of(policy, one), wave_of[one] + 1 if one in wave_of else None) for one in group
    )


async def division(connection: AsyncConnection, policy: Policy, selector: str) -> tuple[Member, ...]:
    """Divide the devices that are in the group now.

    Raises:
        UsageError: a selector that cannot be read.
    """
    group = await selectors.select_ids(connection, selectors.parse(selector))
    inside = set(group)
    matching: dict[int, list[str]] = {}
    for place, wave in enumerate(policy.waves):
        if wave.selector is not None:
            ids = await selectors.select_ids(connection, selectors.parse(wave.selector))
            matching[place] = [one for one in ids if one in inside]
    return divide(policy, group, matching)


async def enlist(tx: Transaction, rollout: Rollout) -> int:
    """Write down the devices of every wave; give how many there are."""
    members = await division(tx.connection, rollout.policy, rollout.selector)
    for piece in pieces(members, 1000):
        await tx.connection.execute(insert(rollout_devices), [_row(rollout, one) for one in piece])
    if tx.connection.dialect.name == "postgresql":
        # a planner that has not seen new rows reads whole tables for each batch, until it looks by itself
        await tx.connection.execute(text("ANALYZE devices, statuses, assignments, rollout_devices"))
    return len(members)


def _row(rollout: Rollout, member: Member, *, late: bool = False) -> dict[str, Any]:
    state = DeviceState.SKIPPED if member.wave is None else DeviceState.WAITING
    return {
        "rollout_id": rollout.id,
        "device_id": member.device_id,
        "wave": member.wave,
        "place": member.place,
        "late": late,
        "state": state.value,
        "reason": None if member.wave else "in_no_wave",
        "detail": "",
        "forgiven": False,
    }


async def release_wave(
    tx: Transaction, rollout: Rollout, number: int, now: float, actor: object = "server"
) -> None:
    """Let a wave begin. It can begin once: its row has the number as key."""
    size = (
        await tx.connection.execute(
            select(func.count()).where(
                rollout_devices.c.rollout_id == rollout.id, rollout_devices.c.wave == number
            )
        )
    ).scalar_one()
    await tx.connection.execute(
        insert(rollout_waves).values(rollout_id=rollout.id, wave=number, released_at=now, measured_from=now)
    )
    await tx.connection.execute(update(rollouts).where(rollouts.c.id == rollout.id).values(wave=number))
    await gates.begin_period(tx, rollout.id, keep_control=True)
    await audit.record(tx, actor, "rollout.wave", rollout.id, {"wave": number, "devices": size})


async def take_in(tx: Transaction, rollout: Rollout, now: float) -> bool:
    """Take in devices that entered the group, or can take part again; say whether there are more of them."""
    joined = await _late(tx, rollout)
    returned = await _heard_again(tx, rollout)
    freed = await _freed(tx, rollout, now)
    for name, ids in (("rollout.join", joined), ("rollout.heard", returned), ("rollout.freed", freed)):
        if ids:
            detail = {"wave": rollout.wave, "count": len(ids), "devices": ids[:_NAMED]}
            await audit.record(tx, "server", name, rollout.id, detail)
    return len(joined) == BATCH


async def _late(tx: Transaction, rollout: Rollout) -> list[str]:
    """Give devices that match and were not there before a place in the wave that was released last."""
    there = exists().where(
        rollout_devices.c.rollout_id == rollout.id, rollout_devices.c.device_id == devices.c.id
    )
    statement = (
        select(devices.c.id)
        .where(devices.c.retired_at.is_(None), selectors.parse(rollout.selector).where(), ~there)
        .order_by(devices.c.id)
        .limit(BATCH)
    )
    ids = list((await tx.connection.execute(statement)).scalars())
    if ids:
        members = [Member(one, place_of(rollout.policy, one), rollout.wave) for one in ids]
        rows = [_row(rollout, one, late=True) for one in members]
        await tx.connection.execute(insert(rollout_devices), rows)
    return ids


async def _heard_again(tx: Transaction, rollout: Rollout) -> list[str]:
    """Have devices that were silent count again, as late joiners: their assignment still stands."""
    mine, theirs = rollout_devices.c, assignments.c
    statement = (
        select(mine.device_id)
        .join(devices, devices.c.id == mine.device_id)
        .join(
            assignments,
            and_(
                theirs.device_id == mine.device_id,
                theirs.model == rollout.policy.model,
                theirs.rollout_id == rollout.id,
                theirs.attempt == mine.attempt,
            ),
        )
        .where(
            mine.rollout_id == rollout.id,
            mine.state == DeviceState.SKIPPED.value,
            mine.reason == "silent",
            devices.c.last_seen >= mine.ended_at,
        )
        .order_by(mine.device_id)
        .limit(BATCH)
    )
    ids = list((await tx.connection.execute(statement)).scalars())
    for piece in pieces(ids):
        await tx.connection.execute(
            update(rollout_devices)
            .where(mine.rollout_id == rollout.id, mine.device_id.in_(piece))
            .values(
                state=DeviceState.ASSIGNED.value,
                reason=None,
                ended_at=None,
                wave=rollout.wave,
                late=True,
                # the patience with it begins again
                assigned_at=select(devices.c.last_seen)
                .where(devices.c.id == mine.device_id)
                .scalar_subquery(),
            )
        )
    return ids


async def _freed(tx: Transaction, rollout: Rollout, now: float) -> list[str]:
    """Have devices wait again whose time in the penalty box is over."""
    mine = rollout_devices.c
    free = exists().where(
        devices.c.id == mine.device_id,
        or_(devices.c.penalty_until.is_(None), devices.c.penalty_until <= now),
    )
    statement = (
        select(mine.device_id)
        .where(
            mine.rollout_id == rollout.id,
            mine.state == DeviceState.SKIPPED.value,
            mine.reason == "penalty_box",
            free,
        )
        .limit(BATCH)
    )
    ids = list((await tx.connection.execute(statement)).scalars())
    for piece in pieces(ids):
        await requeue(tx, rollout, piece)
    return ids


async def requeue(tx: Transaction, rollout: Rollout, ids: Sequence[str]) -> int:
    """Have devices wait for a place again, in their wave."""
    mine = rollout_devices.c
    done: CursorResult[Any] = await tx.connection.execute(
        update(rollout_devices)
        .where(mine.rollout_id == rollout.id, mine.device_id.in_(ids))
        .values(state=DeviceState.WAITING.value, reason=None, detail="", ended_at=None, forgiven=False)
    )
    return done.rowcount
