"""Devices for operators: found, shown, labelled, assigned by hand, retired."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query
from sqlalchemy import RowMapping, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeml_devices.messages import Result
from edgeml_devices.server import audit, releases
from edgeml_devices.server.auth import Operator, Viewer
from edgeml_devices.server.fleet import desired, enrolment, selectors
from edgeml_devices.server.fleet.finding import find_device
from edgeml_devices.server.fleet.labels import check_labels
from edgeml_devices.server.refusals import RefusalError
from edgeml_devices.server.routes.answers import (
    AssignmentAnswer,
    AssignmentBody,
    DeviceAnswer,
    DeviceChange,
    DeviceList,
    DeviceModel,
    EventAnswer,
    EventList,
    Name,
    StatusAnswer,
)
from edgeml_devices.server.services import ServicesOf
from edgeml_devices.server.tables import assignments, devices, events, statuses
from edgeml_devices.server.transaction import Transaction

router = APIRouter(prefix="/v1/devices", tags=["devices"])
Limit = Annotated[int, Query(ge=1, le=1000)]
After = Annotated[str, Query(max_length=128, pattern=r"^[A-Za-z0-9._-]*$")]


@router.get("")
async def list_devices(
    services: ServicesOf,
    _viewer: Viewer,
    selector: str = "",
    after: After = "",
    limit: Limit = 100,
    retired: bool = False,
) -> DeviceList:
    """List devices by name; retired ones only where asked for."""
    chosen = selectors.parse(selector)
    statement = select(devices).where(devices.c.name > after, chosen.where())
    if not retired:
        statement = statement.where(devices.c.retired_at.is_(None))
    async with services.database.reading() as connection:
        rows = (
            (await connection.execute(statement.order_by(devices.c.name).limit(limit + 1))).mappings().all()
        )
        found = await _answers(connection, rows[:limit])
    return DeviceList(devices=found, next=found[-1].name if len(rows) > limit else None)


@router.get("/{device}")
async def show_device(services: ServicesOf, _viewer: Viewer, device: Name) -> DeviceAnswer:
    """Show one device, by its id or name."""
    async with services.database.reading() as connection:
        return await _answer(connection, device)


@router.get("/{device}/events")
async def list_events(
    services: ServicesOf,
    _viewer: Viewer,
    device: Name,
    model: str | None = None,
    after: Annotated[int | None, Query(ge=0, le=2**63 - 1)] = None,
    limit: Limit = 100,
) -> EventList:
    """List what a device reported, the newest first; `after`: go on behind this id."""
    async with services.database.reading() as connection:
        row = await find_device(connection, device)
        statement = select(events).where(events.c.device_id == row["id"])
        if model is not None:
            statement = statement.where(events.c.model == model)
        if after is not None:
            statement = statement.where(events.c.id < after)
        rows = (
            (await connection.execute(statement.order_by(events.c.id.desc()).limit(limit + 1)))
            .mappings()
            .all()
        )
    found = [EventAnswer(**_renamed(row)) for row in rows[:limit]]
    return EventList(events=found, next=str(found[-1].id) if len(rows) > limit else None)


@router.patch("/{device}")
async def change_device(
    services: ServicesOf, operator: Operator, device: Name, change: DeviceChange
) -> DeviceAnswer:
    """Rename a device, or set and remove labels."""
    check_labels(change.labels)
    async with services.database.writing() as tx:
        row = await find_device(tx.connection, device, lock=True)
        if change.labels:
            merged = {**row["labels"], **change.labels}
            labels = {key: value for key, value in merged.items() if value is not None}
            check_labels(labels)
            await tx.connection.execute(
                update(devices).where(devices.c.id == row["id"]).values(labels=labels)
            )
        if change.name is not None:
            await enrolment.rename(tx, row["id"], change.name)
        await audit.record(tx, operator, "device.change", row["id"], change.model_dump(exclude_defaults=True))
        return await _answer(tx.connection, row["id"])


@router.post("/{device}/retire")
async def retire_device(services: ServicesOf, operator: Operator, device: Name) -> DeviceAnswer:
    """Retire a device: its token is refused from now on, its history stays. There is no way back."""
    async with services.database.writing() as tx:
        row = await find_device(tx.connection, device, lock=True)
        if row["retired_at"] is None:
            await tx.connection.execute(
                update(devices).where(devices.c.id == row["id"]).values(retired_at=time.time())
            )
            tx.changed.add(row["id"])
            await audit.record(tx, operator, "device.retire", row["id"], {"name": row["name"]})
        return await _answer(tx.connection, row["id"])


@router.put("/{device}/models/{model}")
async def assign_model(
    services: ServicesOf, operator: Operator, device: Name, model: Name, body: AssignmentBody
) -> DeviceAnswer:
    """Have one device run a release, by hand. The same release after it failed: another attempt."""
    async with services.database.writing() as tx:
        row = await find_device(tx.connection, device, lock=True)
        if row["retired_at"] is not None:
            raise RefusalError(409, f"{row['name']} is retired")
        if body.release is not None:
            await releases.require_deployable(tx.connection, services.repository, model, body.release)
        attempt = await _next_attempt(tx, row["id"], model, body.release)
        now = time.time()
        await desired.assign(
            tx, [row["id"]], model, release=body.release, attempt=attempt, hold=body.hold, now=now
        )
        detail = {"release": body.release, "attempt": attempt, "hold": body.hold}
        await audit.record(tx, operator, "device.assign", f"{row['id']}/{model}", detail)
        return await _answer(tx.connection, row["id"])


@router.delete("/{device}/models/{model}")
async def unassign_model(services: ServicesOf, operator: Operator, device: Name, model: Name) -> DeviceAnswer:
    """Take an assignment back: the device keeps what it runs, and ends what it has not begun to switch to."""
    async with services.database.writing() as tx:
        row = await find_device(tx.connection, device, lock=True)
        await desired.unassign(tx, [row["id"]], model)
        await audit.record(tx, operator, "device.unassign", f"{row['id']}/{model}")
        return await _answer(tx.connection, row["id"])


async def _next_attempt(tx: Transaction, device_id: str, model: str, release: int | None) -> int:
    """Give the attempt at a release: another one if the last failed, whatever was assigned in between."""
    mine = assignments.c.device_id == device_id, assignments.c.model == model
    assigned = (await tx.connection.execute(select(assignments).where(*mine))).first()
    told = statuses.c.device_id == device_id, statuses.c.model == model
    status = (await tx.connection.execute(select(statuses).where(*told))).first()
    history = select(func.max(events.c.attempt)).where(
        events.c.device_id == device_id,
        events.c.model == model,
        events.c.release == release,
        events.c.result != Result.SUCCESSFUL,
    )
    last_failed = (await tx.connection.execute(history)).scalar()
    tried = [1 if last_failed is None else last_failed + 1]
    if assigned is not None and assigned.release == release:
        tried.append(assigned.attempt)
    if status is not None and status.target == release:
        failed = status.result is not None and status.result != Result.SUCCESSFUL
        tried.append(status.attempt + 1 if failed else status.attempt)
    return max(tried)


async def _answer(connection: AsyncConnection, device: str) -> DeviceAnswer:
    return (await _answers(connection, [await find_device(connection, device)]))[0]


async def _answers(connection: AsyncConnection, rows: Sequence[RowMapping]) -> list[DeviceAnswer]:
    ids = [row["id"] for row in rows]
    models: dict[str, dict[str, dict[str, Any]]] = {id_: {} for id_ in ids}
    for key, table in (("assigned", assignments), ("status", statuses)):
        statement = select(table).where(table.c.device_id.in_(ids)).order_by(table.c.model)
        for row in (await connection.execute(statement)).mappings():
            of_model = models[row["device_id"]].setdefault(row["model"], {"assigned": None, "status": None})
            kind = AssignmentAnswer if key == "assigned" else StatusAnswer
            of_model[key] = kind(**_renamed(row))
    return [
        DeviceAnswer(
            **row, models={model: DeviceModel(**found) for model, found in models[row["id"]].items()}
        )
        for row in rows
    ]


def _renamed(row: RowMapping) -> dict[str, Any]:
    values = dict(row)
    values["rollout"] = values.pop("rollout_id")
    if "selftest" in values:
        values["selftest"] = values["selftest"] or {}
    return values
