"""What a rule's expression measures now: a value for each instance."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, cast

from sqlalchemy import func, select

from edgeml_devices.server.alerts.expressions import Expression
from edgeml_devices.server.alerts.states import Key
from edgeml_devices.server.database import Database
from edgeml_devices.server.fleet.directory import UNKNOWN
from edgeml_devices.server.tables import devices
from edgeml_devices.server.telemetry.choosing import choose_devices, device_names
from edgeml_devices.server.telemetry.comparing import Comparison, compare
from edgeml_devices.server.telemetry.drift import By
from edgeml_devices.server.telemetry.drifting import References, find_drift
from edgeml_devices.server.telemetry.machines import machines
from edgeml_devices.server.telemetry.questions import (
    CONFIDENCE,
    Interval,
    Question,
    listed,
    quantiles,
    rates,
)
from edgeml_devices.server.telemetry.store import Coverage, Selection, TelemetryStore

_DAY_S: Final = 86400
Values = dict[Key, float]


@dataclass(frozen=True, slots=True)
class Sources:
    """Where rules measure."""

    database: Database
    store: TelemetryStore
    references: References


async def measure(sources: Sources, expression: Expression, now: float) -> Values:
    """Measure an expression at a moment.

    Raises:
        RefusalError: a device or group that is gone.
        UsageError: a dimension that the metric has not.
    """
    return await _MEASURES[expression.metric](sources, expression, await _selection(sources, expression, now))


async def _selection(sources: Sources, expression: Expression, now: float) -> Selection:
    async with sources.database.reading() as connection:
        chosen = await choose_devices(
            connection,
            listed(expression.get("device", "")),
            listed(expression.get("group", "")),
            expression.get("selector", ""),
        )
    release = expression.labels.get("release")
    return Selection(
        now - expression.window_s if expression.metric != "silent_seconds" else 0.0,
        now,
        chosen,
        expression.labels.get("model"),
        None if release is None else int(release),
        expression.labels.get("variant"),
        expression.labels.get("target"),
    )


async def _latency(sources: Sources, expression: Expression, selection: Selection) -> Values:
    metric = CONFIDENCE if expression.metric == CONFIDENCE else expression.stage
    question = Question(selection, expression.by, metric)
    fewest = int(expression.get("min_count", "1"))
    found = [
        (one.key, _bound(expression, one.quantiles[expression.share]))
        for one in await quantiles(sources.store, question, [expression.share])
        if one.count >= fewest
    ]
    return await _named(sources, found)


async def _error_rate(sources: Sources, expression: Expression, selection: Selection) -> Values:
    fewest = int(expression.get("min_count", "1"))
    found = [
        (one.key, _bound(expression, one.rate))
        for one in await rates(sources.store, Question(selection, expression.by))
        if one.calls >= fewest
    ]
    return await _named(sources, found)


async def _calls(sources: Sources, expression: Expression, selection: Selection) -> Values:
    found = [(one.key, one.per_s) for one in await rates(sources.store, Question(selection, expression.by))]
    return await _named(sources, found or ([] if expression.by else [({}, 0.0)]))


async def _ratio(sources: Sources, expression: Expression, selection: Selection) -> Values:
    found = await _comparison(sources, expression, selection)
    return _whole(expression, found.ratios[expression.share])


async def _difference(sources: Sources, expression: Expression, selection: Selection) -> Values:
    found = await _comparison(sources, expression, selection)
    return _whole(expression, found.error_difference)


async def _comparison(sources: Sources, expression: Expression, selection: Selection) -> Comparison:
    pairing: Any = expression.get("pairing", "device-hour")
    return await compare(
        sources.store,
        selection,
        model=expression.labels["model"],
        release=int(expression.labels["release"]),
        against=int(expression.labels["against"]),
        quantiles=[expression.share],
        pairing=pairing,
    )


async def _machine(sources: Sources, expression: Expression, selection: Selection) -> Values:
    quantity, stat = expression.labels["quantity"], expression.get("stat", "max")
    found = [
        (one.key, float(getattr(one.quantities[quantity], stat)))
        for one in await machines(sources.store, selection, expression.by)
        if quantity in one.quantities
    ]
    return await _named(sources, found)


async def _energy(sources: Sources, expression: Expression, selection: Selection) -> Values:
    found = [
        (one.key, one.energy_per_call_joules)
        for one in await machines(sources.store, selection, expression.by)
        if one.energy_per_call_joules is not None
    ]
    return await _named(sources, found)


async def _covered(sources: Sources, expression: Expression, selection: Selection) -> Values:
    """Give the covered share of the days (UTC) that the window touches, up to now."""
    rows = await _coverage(sources, selection)
    begins = selection.since // _DAY_S * _DAY_S
    seconds: dict[str, float] = {}
    for row in rows:
        seconds[row.device_id] = seconds.get(row.device_id, 0.0) + row.seconds
    shares = {one: min(1.0, covered / (selection.until - begins)) for one, covered in seconds.items()}
    if "device" in expression.by:
        return await _named(sources, [({"device": one}, share) for one, share in shares.items()])
    return {(): sum(shares.values()) / len(shares)} if shares else {}


async def _missing(sources: Sources, expression: Expression, selection: Selection) -> Values:
    counts: dict[str, int] = {}
    for row in await _coverage(sources, selection):
        counts[row.device_id] = counts.get(row.device_id, 0) + row.absent
    if "device" in expression.by:
        return await _named(sources, [({"device": one}, float(count)) for one, count in counts.items()])
    return {(): float(sum(counts.values()))}


async def _coverage(sources: Sources, selection: Selection) -> Sequence[Coverage]:
    return await sources.store.coverage(replace(selection, since=selection.since // _DAY_S * _DAY_S))


async def _drifted(sources: Sources, expression: Expression, selection: Selection) -> Values:
    """Count features of each model that drifted; by device, target, release, or over the fleet."""
    by = next((one for one in expression.by if one in {"device", "target", "release"}), "fleet")
    found, _ = await find_drift(sources.store, sources.references, selection, cast("By", by))
    counts: dict[tuple[tuple[str, str | int], ...], int] = {}
    for one in found:
        key: list[tuple[str, str | int]] = [("model", one.group.model)]
        if one.group.release is not None:
            key.append(("release", one.group.release))
        if one.group.name:
            key.append((by, one.group.name))
        counts[tuple(key)] = counts.get(tuple(key), 0) + one.drifted
    return await _named(sources, [(dict(key), float(count)) for key, count in counts.items()])


async def _silent(sources: Sources, _: Expression, selection: Selection) -> Values:
    target = func.coalesce(devices.c.facts[("target", "name")].as_string(), UNKNOWN)
    columns = devices.c.id, devices.c.name, devices.c.last_seen, devices.c.enrolled_at
    statement = select(*columns).where(devices.c.retired_at.is_(None))
    if selection.target is not None:
        statement = statement.where(target == selection.target)
    async with sources.database.reading() as connection:
        rows = (await connection.execute(statement)).all()
    return {
        (("device", row.name),): max(0.0, selection.until - (row.last_seen or row.enrolled_at))
        for row in rows
        if selection.devices is None or row.id in selection.devices
    }


def _bound(expression: Expression, interval: Interval) -> float:
    return float(getattr(interval, expression.get("bound", "value")))


def _whole(expression: Expression, interval: Interval | None) -> Values:
    if interval is None:
        return {}
    key = (("model", expression.labels["model"]), ("release", expression.labels["release"]))
    return {key: _bound(expression, interval)}


async def _named(sources: Sources, found: Sequence[tuple[Mapping[str, str | int], float]]) -> Values:
    """Give values by keys of text, devices by their names."""
    ids = {str(key["device"]) for key, _ in found if "device" in key}
    names: dict[str, str] = {}
    if ids:
        async with sources.database.reading() as connection:
            names = await device_names(connection, ids)
    return {
        tuple(
            (name, names.get(str(one), str(one)) if name == "device" else str(one))
            for name, one in key.items()
        ): value
        for key, value in found
    }


_MEASURES: Final[Mapping[str, Callable[[Sources, Expression, Selection], Awaitable[Values]]]] = {
    "latency_seconds": _latency,
    "confidence": _latency,
    "error_rate": _error_rate,
    "calls_per_second": _calls,
    "latency_ratio": _ratio,
    "error_rate_difference": _difference,
    "machine": _machine,
    "energy_per_call_joules": _energy,
    "covered_share": _covered,
    "missing_windows": _missing,
    "drifted_features": _drifted,
    "silent_seconds": _silent,
}
