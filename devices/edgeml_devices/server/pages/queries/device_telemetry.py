"""One device's telemetry: its models over a day, its machine, and what came of each day."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from edgeml.telemetry.report import Summary
from edgeml_devices.server.pages.charts import Chart, Point, Series, Span, over_time
from edgeml_devices.server.pages.queries.alerts import AlertList, alert_list
from edgeml_devices.server.pages.queries.drift import DriftView, drift_view, drifted_by_release
from edgeml_devices.server.pages.queries.hours import Column, columns, error_chart, hour_span, latency_chart
from edgeml_devices.server.pages.queries.sampling import windows_s
from edgeml_devices.server.pages.queries.telemetry import (
    DAY_S,
    ReleaseRow,
    release_rows,
)
from edgeml_devices.server.services import Services
from edgeml_devices.server.telemetry.coverages import covered_share
from edgeml_devices.server.telemetry.machines import machines
from edgeml_devices.server.telemetry.store import Coverage, HourRow, Selection

HOURS: Final = 24
DAYS: Final = 14
"""That coverage looks back."""
_MODELS_DRAWN: Final = 4
_TEMPERATURE: Final = "temperature_celsius"
_SLOWED: Final = ("throttled", "under_voltage")
"""Shares of the time."""


@dataclass(frozen=True, slots=True)
class ModelPart:
    """One model over the day, all of its releases."""

    model: str
    latency: tuple[Chart, ...]
    errors: tuple[Chart, ...]
    columns: tuple[Column, ...]


@dataclass(frozen=True, slots=True)
class DayOf:
    """What came of a day."""

    coverage: Coverage
    share: float


@dataclass(frozen=True, slots=True)
class DeviceTelemetry:
    """What the device's page shows of it."""

    rows: tuple[ReleaseRow, ...]
    models: tuple[ModelPart, ...]
    left_out: int
    """Models that are not drawn."""
    quantities: Mapping[str, Summary]
    """Of the machine, over the day."""
    energy_per_call_joules: float | None
    temperature: tuple[Chart, ...]
    slowed: tuple[Chart, ...]
    """Share of the time in which the machine was slowed down."""
    days: tuple[DayOf, ...]
    """Newest first."""
    alerts: AlertList
    drift: DriftView


async def device_telemetry(services: Services, device_id: str, name: str, now: float) -> DeviceTelemetry:
    """Read a day of one device, and the coverage of two weeks."""
    span = hour_span(now, HOURS, 1)
    selection = Selection(span.begin, now, frozenset([device_id]))
    async with services.database.reading() as connection:
        alerts = await alert_list(connection, name)
    hours = await services.telemetry.hours(selection, by_device=True)
    parts = _parts(hours, span)
    recent = replace(selection, since=max(span.begin, now - windows_s(len(parts))))
    drift = await drift_view(services, recent, "release")
    whole = await machines(services.telemetry, selection, ())
    temperature, slowed = await _machine_charts(services, selection, span)
    two_weeks = replace(selection, since=(now // DAY_S - DAYS + 1) * DAY_S)
    covered = await services.telemetry.coverage(two_weeks)
    days = sorted(covered, key=lambda one: one.day, reverse=True)
    return DeviceTelemetry(
        tuple(await release_rows(services, selection, drifted_by_release(drift))),
        tuple(parts[:_MODELS_DRAWN]),
        max(0, len(parts) - _MODELS_DRAWN),
        whole[0].quantities if whole else {},
        whole[0].energy_per_call_joules if whole else None,
        temperature,
        slowed,
        tuple(DayOf(one, covered_share(one)) for one in days),
        alerts,
        drift,
    )


def _parts(hours: Sequence[HourRow], span: Span) -> list[ModelPart]:
    by_model: dict[str, list[HourRow]] = {}
    for row in hours:
        by_model.setdefault(row.model, []).append(row)
    parts = []
    for model, rows in sorted(by_model.items()):
        found = columns(rows, span)
        parts.append(ModelPart(model, latency_chart(found, span), error_chart(found, span), tuple(found)))
    return parts


async def _machine_charts(
    services: Services, selection: Selection, span: Span
) -> tuple[tuple[Chart, ...], tuple[Chart, ...]]:
    """Draw temperature and throttling by hour."""
    temperature: list[Point] = []
    slowed: dict[str, list[Point]] = {name: [] for name in _SLOWED}
    for one in await machines(services.telemetry, selection, ("hour",)):
        at = datetime.fromisoformat(str(one.key["hour"])).timestamp()
        celsius = one.quantities.get(_TEMPERATURE)
        if celsius is not None:
            temperature.append(Point(at, celsius.mean, celsius.min, celsius.max))
        for name, points in slowed.items():
            share = one.quantities.get(name)
            if share is not None:
                points.append(Point(at, 100 * share.mean, 100 * share.mean, 100 * share.mean))
    words = [Series(name.replace("_", " "), points) for name, points in slowed.items() if points]
    return over_time([Series("temperature", temperature)], span), over_time(words, span, from_zero=True)
