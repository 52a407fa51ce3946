"""The list of devices, and one device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, and_, exists, func, select
from sqlalchemy.engine import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeml.errors import UsageError
from edgeml_devices.server.fleet.finding import find_device
from edgeml_devices.server.fleet.selectors import parse
from edgeml_devices.server.pages.queries.presence import is_present, presence
from edgeml_devices.server.tables import assignments, devices, events, statuses

PAGE: Final = 50
_MODELS_SHOWN: Final = 500
"""Models of one device, or of a page of devices: a device may report any number."""
_BIGGEST: Final = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Filter:
    """Which devices; the empty text means any."""

    selector: str = ""
    seen: str = ""
    """One of ``presence.PRESENCES``; else all that are not retired."""
    runs: str = ""
    """``MODEL`` or ``MODEL/RELEASE``."""
    state: str = ""
    """Of any of its models."""

    def where(self, now: float) -> ColumnElement[bool]:
        """Give the condition on rows of ``devices``.

        Raises:
            UsageError: a selector or a release that cannot be read.
        """
        found = [is_present(self.seen, now), parse(self.selector).where()]
        if self.runs or self.state:
            found.append(self._has_status())
        return and_(*found)

    def _has_status(self) -> ColumnElement[bool]:
        conditions = [statuses.c.device_id == devices.c.id]
        if self.state:
            conditions.append(statuses.c.state == self.state)
        if self.runs:
            model, slash, release = self.runs.partition("/")
            conditions.append(statuses.c.model == model)
            if slash:
                conditions.append(statuses.c.running == release_number(release))
        return exists().where(*conditions)


def release_number(text: str) -> int:
    """Read a release's number.

    Raises:
        UsageError: none.
    """
    if not (text.isascii() and text.isdigit() and int(text[:20]) <= _BIGGEST):
        raise UsageError(f"{text[:40]!r} is no release; write it as in kws/3")
    return int(text[:20])


@dataclass(frozen=True, slots=True)
class DeviceRow:
    """One device of the list."""

    id: str
    name: str
    presence: str
    last_seen: float | None
    labels: Mapping[str, str]
    target: str
    models: tuple[Row[Any], ...]
    """model, running, state, reason."""


@dataclass(frozen=True, slots=True)
class DeviceList:
    """One page of devices."""

    rows: tuple[DeviceRow, ...]
    total: int
    """That the filter matches, on all pages."""
    after: str | None
    """Name of the last one where more follow."""


async def device_list(connection: AsyncConnection, chosen: Filter, after: str, now: float) -> DeviceList:
    """Read a page of devices, by name.

    Raises:
        UsageError: the filter cannot be read.
    """
    where = chosen.where(now)
    total = (await connection.execute(select(func.count()).select_from(devices).where(where))).scalar_one()
    columns = (devices.c.id, devices.c.name, devices.c.last_seen, devices.c.labels)
    target = devices.c.facts[("target", "name")].as_string().label("target")
    statement = select(*columns, target, presence(now).label("presence")).where(where)
    if after:
        statement = statement.where(devices.c.name > after)
    found = list(await connection.execute(statement.order_by(devices.c.name).limit(PAGE + 1)))
    shown = found[:PAGE]
    models = await _models(connection, [row.id for row in shown])
    rows = tuple(
        DeviceRow(
            row.id,
            row.name,
            row.presence,
            row.last_seen,
            row.labels or {},
            row.target or "",
            tuple(models.get(row.id, ())),
        )
        for row in shown
    )
    return DeviceList(rows, total, shown[-1].name if len(found) > PAGE else None)


async def _models(connection: AsyncConnection, ids: Sequence[str]) -> dict[str, list[Row[Any]]]:
    columns = [statuses.c[name] for name in ("device_id", "model", "running", "state", "reason")]
    statement = select(*columns).where(statuses.c.device_id.in_(ids))
    found: dict[str, list[Row[Any]]] = {}
    ordered = statement.order_by(statuses.c.model, statuses.c.device_id).limit(_MODELS_SHOWN)
    for row in await connection.execute(ordered):
        found.setdefault(row.device_id, []).append(row)
    return found


# --- one device


@dataclass(frozen=True, slots=True)
class DeviceView:
    """All that is known of a device."""

    row: Row[Any]
    """Of ``devices``, without what its token was hashed to."""
    models: tuple[Row[Any], ...]
    """Desired and reported, side by side."""
    events: tuple[Row[Any], ...]
    before: int | None
    """Id of the last event where older ones follow."""


async def device_view(
    connection: AsyncConnection, id_or_name: str, before: int | None, now: float
) -> DeviceView:
    """Read a device, with a page of its history, newest first.

    Raises:
        RefusalError: 404.
    """
    hidden = {"token_sha256", "join_token_id"}
    columns = [
        *(column for column in devices.c if column.name not in hidden),
        presence(now).label("presence"),
    ]
    device = await find_device(connection, id_or_name)
    row = (await connection.execute(select(*columns).where(devices.c.id == device["id"]))).one()
    history = select(events).where(events.c.device_id == row.id)
    if before is not None:
        history = history.where(events.c.id < before)
    found = list(await connection.execute(history.order_by(events.c.id.desc()).limit(PAGE + 1)))
    shown = tuple(found[:PAGE])
    models = await _desired_and_reported(connection, row.id)
    return DeviceView(row, models, shown, shown[-1].id if len(found) > PAGE else None)


async def _desired_and_reported(connection: AsyncConnection, device_id: str) -> tuple[Row[Any], ...]:
    """Join by model, from both sides: a device may run what nobody assigned, and lack what was."""
    models = (
        select(statuses.c.model)
        .where(statuses.c.device_id == device_id)
        .union(select(assignments.c.model).where(assignments.c.device_id == device_id))
        .order_by("model")
        .limit(_MODELS_SHOWN)
        .subquery()
    )
    desired = [
        assignments.c.release.label("desired"),
        assignments.c.attempt.label("desired_attempt"),
        assignments.c.hold,
        assignments.c.rollout_id.label("desired_rollout"),
        assignments.c.changed_at,
    ]
    reported = [column for column in statuses.c if column.name not in {"device_id", "model"}]
    mine = assignments.c.device_id == device_id
    said = statuses.c.device_id == device_id
    statement = (
        select(models.c.model, *desired, *reported)
        .select_from(models)
        .join(assignments, and_(mine, assignments.c.model == models.c.model), isouter=True)
        .join(statuses, and_(said, statuses.c.model == models.c.model), isouter=True)
        .order_by(models.c.model)
    )
    return tuple(await connection.execute(statement))
