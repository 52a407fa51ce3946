"""The fleet's telemetry at a glance: how fast and how sound models are, what came of it, what is wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeml_devices.server.pages.queries.alerts import AlertList, alert_list
from edgeml_devices.server.pages.queries.drift import DriftView, drift_view, drifted_by_release
from edgeml_devices.server.pages.queries.sampling import choose
from edgeml_devices.server.services import Services
from edgeml_devices.server.tables import devices
from edgeml_devices.server.telemetry.choosing import device_names
from edgeml_devices.server.telemetry.coverages import covered_share
from edgeml_devices.server.telemetry.questions import Interval, Question, quantiles, rates
from edgeml_devices.server.telemetry.store import Coverage, Selection

SHARES: Final = (0.5, 0.95, 0.99)
DAY_S: Final = 86400.0
_MODELS, _WORST = 100, 20


@dataclass(frozen=True, slots=True)
class ReleaseRow:
    """One release of one model in a day."""

    model: str
    release: int
    calls: int
    per_s: float
    latency: Mapping[float, Interval]
    """Seconds by share; empty: no call succeeded."""
    rate: Interval
    """Of errors."""
    drifted: int | None
    """Features; ``None``: nothing was judged."""


@dataclass(frozen=True, slots=True)
class DayRow:
    """What came of all devices on a day (UTC)."""

    day: str
    devices: int
    share: float
    """Of the day until now that windows cover, of the devices that sent any."""
    missing: int
    evicted: int
    damaged: int
    merged: int
    overwritten: int


@dataclass(frozen=True, slots=True)
class LackingRow:
    """A device of which something is missing."""

    name: str
    day: str
    share: float
    coverage: Coverage


@dataclass(frozen=True, slots=True)
class FleetTelemetry:
    """What the page shows."""

    rows: tuple[ReleaseRow, ...]
    left_out: int
    alerts: AlertList
    drift: DriftView
    days: tuple[DayRow, ...]
    lacking: tuple[LackingRow, ...]
    silent: int
    """Devices that are enrolled and sent nothing on these days."""


async def fleet_telemetry(services: Services, now: float) -> FleetTelemetry:
    """Read a day of telemetry: sums of all devices, single windows of some."""
    selection = Selection(now - DAY_S, now)
    async with services.database.reading() as connection:
        alerts = await alert_list(connection)
        chosen = await choose(connection, now)
    drift = await drift_view(
        services, Selection(now - chosen.windows_s, now, chosen.ids), "release", chosen.of
    )
    rows = await release_rows(services, selection, drifted_by_release(drift))
    covered = await services.telemetry.coverage(Selection(selection.since // DAY_S * DAY_S, now))
    async with services.database.reading() as connection:
        worst = _worst(covered)
        names = await device_names(connection, {one.device_id for one in worst})
        enrolled = await _enrolled(connection)
    lacking = tuple(
        LackingRow(names.get(one.device_id, one.device_id), one.day, covered_share(one), one) for one in worst
    )
    silent = max(0, enrolled - len({one.device_id for one in covered}))
    return FleetTelemetry(
        tuple(rows[:_MODELS]),
        max(0, len(rows) - _MODELS),
        alerts,
        drift,
        _days(covered),
        lacking,
        silent,
    )


async def release_rows(
    services: Services, selection: Selection, drifted: Mapping[tuple[str, int | None], int]
) -> list[ReleaseRow]:
    """Give each release's figures, by model, newest first."""
    question = Question(selection, ("model", "release"))
    latency = {_key(one.key): one.quantiles for one in await quantiles(services.telemetry, question, SHARES)}
    rows = []
    for one in await rates(services.telemetry, question):
        model, release = _key(one.key)
        found = latency.get((model, release), {})
        seen = drifted.get((model, release))
        rows.append(ReleaseRow(model, release, one.calls, one.per_s, found, one.rate, seen))
    return sorted(rows, key=lambda row: (row.model, -row.release))


def _key(key: Mapping[str, str | int]) -> tuple[str, int]:
    return str(key["model"]), int(key["release"])


def _days(covered: Sequence[Coverage]) -> tuple[DayRow, ...]:
    days: dict[str, list[Coverage]] = {}
    for one in covered:
        days.setdefault(one.day, []).append(one)
    return tuple(
        DayRow(
            day,
            len(rows),
            sum(covered_share(one) for one in rows) / len(rows),
            *(
                sum(getattr(one, name) for one in rows)
                for name in ("missing", "evicted", "damaged", "merged", "overwritten")
            ),
        )
        for day, rows in sorted(days.items(), reverse=True)
    )


def _worst(covered: Sequence[Coverage]) -> list[Coverage]:
    faulty = [one for one in covered if one.absent or one.overwritten]
    return sorted(faulty, key=lambda one: (-one.absent, covered_share(one), one.device_id))[:_WORST]


async def _enrolled(connection: AsyncConnection) -> int:
    statement = select(func.count()).select_from(devices).where(devices.c.retired_at.is_(None))
    return (await connection.execute(statement)).scalar_one()
