"""One release in the field: latency and errors over time, drift, the release before it, what was kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from sqlalchemy import select
from sqlalchemy.engine import Row

from edgeml.errors import UsageError
from edgeml.telemetry.exponential import EMPTY, merge
from edgeml_devices.server.pages.charts import Chart, heat_map
from edgeml_devices.server.pages.queries.drift import DriftView, drift_view
from edgeml_devices.server.pages.queries.hours import Column, columns, error_chart, hour_span
from edgeml_devices.server.pages.queries.sampling import choose
from edgeml_devices.server.services import Services
from edgeml_devices.server.tables import releases
from edgeml_devices.server.telemetry.choosing import device_names
from edgeml_devices.server.telemetry.comparing import Comparison, compare
from edgeml_devices.server.telemetry.store import HourRow, SampleRow, Selection

SPANS: Final[Mapping[str, tuple[int, int, str]]] = {
    "24h": (24, 1, "last 24 hours"),
    "7d": (168, 3, "last 7 days"),
    "30d": (720, 12, "last 30 days"),
}
"""Hours, hours of a step, and words."""
_COMPARED_HOURS: Final = 168
"""Of the devices that are compared; a longer span is compared over its last week."""
_SAMPLES: Final = 20


@dataclass(frozen=True, slots=True)
class Part:
    """A variant on a kind of machine."""

    variant: str
    target: str
    whole: Column


@dataclass(frozen=True, slots=True)
class ReleaseTelemetry:
    """What the page shows."""

    model: str
    release: int
    listed: Row[Any] | None
    """Of ``releases``; ``None``: devices ran what was never published here."""
    span: str
    whole: Column
    parts: tuple[Part, ...]
    columns: tuple[Column, ...]
    heat: tuple[Chart, ...]
    errors: tuple[Chart, ...]
    others: tuple[int, ...]
    """Other releases of the model that ran in this time, newest first."""
    comparison: Comparison | None
    compared_devices: tuple[int, int]
    """Of how many devices chosen the comparison reads, and how many there are."""
    drift: DriftView
    samples: tuple[SampleRow, ...]
    names: Mapping[str, str]
    """Of devices, by id."""


async def release_telemetry(
    services: Services, model: str, release: int, span_name: str, now: float
) -> ReleaseTelemetry:
    """Read a release's telemetry.

    Raises:
        UsageError: a span that the page does not have.
    """
    if span_name not in SPANS:
        raise UsageError(f"{span_name!r:.20} is no span; there are: {', '.join(SPANS)}")
    hours, step, _ = SPANS[span_name]
    span = hour_span(now, hours, step)
    selection = Selection(span.begin, now, model=model)
    rows = await services.telemetry.hours(selection, by_device=False)
    mine = [row for row in rows if row.release == release]
    found = columns(mine, span)
    others = tuple(sorted({row.release for row in rows} - {release}, reverse=True))
    statement = select(releases).where(releases.c.model == model, releases.c.release == release)
    async with services.database.reading() as connection:
        listed = (await connection.execute(statement)).first()
        chosen = await choose(connection, now, model, release)
    own = replace(selection, release=release)
    samples = await services.telemetry.samples(own, _SAMPLES)
    async with services.database.reading() as connection:
        names = await device_names(connection, {one.device_id for one in samples})
    before = max((one for one in others if one < release), default=None)
    comparison = None
    if before is not None and mine:
        since = max(span.begin, now - _COMPARED_HOURS * 3600)
        comparison = await compare(
            services.telemetry,
            Selection(since, now, chosen.ids),
            model=model,
            release=release,
            against=before,
            quantiles=(0.5, 0.95, 0.99),
        )
    recent = replace(own, since=max(span.begin, now - chosen.windows_s), devices=chosen.ids)
    return ReleaseTelemetry(
        model, release, listed, span_name, _whole(found), _parts(mine), tuple(found),
        heat_map([(one.at, one.latency) for one in found], span), error_chart(found, span), others,
        comparison, (len(chosen.ids), chosen.of),
        await drift_view(services, recent, "release", chosen.of), tuple(samples), names,
    )  # fmt: skip


def _whole(found: Sequence[Column]) -> Column:
    return Column(
        0.0,
        sum(one.calls for one in found),
        sum(one.errors for one in found),
        merge(one.latency for one in found) if found else EMPTY,
    )


def _parts(rows: Sequence[HourRow]) -> tuple[Part, ...]:
    parts: dict[tuple[str, str], list[Column]] = {}
    for row in rows:
        key = row.variant, row.target
        parts.setdefault(key, []).append(Column(0.0, row.calls, row.errors, row.latency))
    return tuple(Part(*key, _whole(found)) for key, found in sorted(parts.items())[:50])
