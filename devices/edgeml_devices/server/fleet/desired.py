"""What devices are to run: rows of ``assignments``, and a generation of each device that rises with them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from sqlalchemy import and_, delete, select, update
from sqlalchemy.dialects import postgresql, sqlite

from edgeml_devices.server.database import pieces
from edgeml_devices.server.tables import assignments, devices
from edgeml_devices.server.transaction import Transaction


async def assign(
    tx: Transaction,
    device_ids: Iterable[str],
    model: str,
    *,
    release: int | None,
    attempt: int = 1,
    hold: bool = False,
    on_abort: Literal["finish", "rollback"] = "finish",
    rollout_id: str | None = None,
    open_until: float | None = None,
    now: float,
) -> None:
    """Have devices run a release of a model; what was assigned for the model before goes.

    Args:
        tx: the transaction; its ``changed`` gets the devices.
        device_ids: must be there; retired ones are passed over.
        model: its name.
        release: ``None`` has the model removed.
        attempt: has to rise for a release that is to be tried again.
        hold: fetch and test, but do not switch.
        on_abort: what a device in PROBATION does when the assignment goes back.
        rollout_id: whose assignment it is; ``None``: made by hand.
        open_until: when the maintenance window closes, Unix seconds: the device begins no switch after it
            on this answer; ``None``: it stays open.
        now: Unix seconds.
    """
    row: dict[str, Any] = {
        "model": model,
        "release": release,
        "attempt": attempt,
        "hold": hold,
        "open_until": open_until,
        "on_abort": on_abort,
        "rollout_id": rollout_id,
        "changed_at": now,
    }
    insert = (sqlite if tx.connection.dialect.name == "sqlite" else postgresql).insert
    for ids in pieces(sorted(set(device_ids))):
        present = await _raise_generation(tx, ids)
        if present:
            statement = insert(assignments)
            # many parameters for one statement, compiled once: a wave has thousands of devices
            await tx.connection.execute(
                statement.on_conflict_do_update(
                    index_elements=[assignments.c.device_id, assignments.c.model],
                    set_={name: statement.excluded[name] for name in row if name != "model"},
                ),
                [row | {"device_id": one} for one in present],
            )


async def unassign(tx: Transaction, device_ids: Iterable[str], model: str) -> None:
    """Say nothing more about a model to devices: they keep what they run."""
    for ids in pieces(sorted(set(device_ids))):
        mine = and_(assignments.c.device_id.in_(ids), assignments.c.model == model)
        found = (await tx.connection.execute(select(assignments.c.device_id).where(mine))).scalars().all()
        if await _raise_generation(tx, sorted(found)):
            await tx.connection.execute(delete(assignments).where(mine))


async def _raise_generation(tx: Transaction, ids: Iterable[str]) -> list[str]:
    """Raise the generation of those that are not retired; give them."""
    here = and_(devices.c.id.in_(list(ids)), devices.c.retired_at.is_(None))
    # locked in one order, so that two transactions cannot wait for each other
    locked = select(devices.c.id).where(here).order_by(devices.c.id).with_for_update()
    present = list((await tx.connection.execute(locked)).scalars())
    if present:
        await tx.connection.execute(
            update(devices).where(devices.c.id.in_(present)).values(generation=devices.c.generation + 1)
        )
        tx.changed.update(present)
    return present
