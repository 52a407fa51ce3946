"""Questions about the fleet's telemetry. Times are Unix seconds; lists are separated by commas."""

from __future__ import annotations

import asyncio
import base64
import json
import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import numpy as np
from fastapi import APIRouter, Depends, Query

from edgeml.errors import UsageError
from edgeml.telemetry.drift import LEVEL
from edgeml_devices.server.auth import Viewer
from edgeml_devices.server.routes.answers import Name
from edgeml_devices.server.services import ServicesOf
from edgeml_devices.server.telemetry.choosing import choose_devices, device_names
from edgeml_devices.server.telemetry.comparing import Pairing, compare
from edgeml_devices.server.telemetry.coverages import covered_share
from edgeml_devices.server.telemetry.drift import By
from edgeml_devices.server.telemetry.drifting import find_drift, watch_slow_drift
from edgeml_devices.server.telemetry.machines import machines
from edgeml_devices.server.telemetry.questions import TOTAL, Question, dimensions, listed, quantiles, rates
from edgeml_devices.server.telemetry.store import Selection

router = APIRouter(prefix="/v1/telemetry", tags=["telemetry"])
_DAY_S: Final = 86400.0
_LONGEST_LIST: Final = 4000
_MOST_SLOW: Final = 10_000
"""Slow drifts in an answer: 3 MB."""
Moment = Annotated[float | None, Query(ge=0, le=2**37, allow_inf_nan=False)]
Names = Annotated[str, Query(max_length=_LONGEST_LIST, description="Separated by commas.")]
Release = Annotated[int | None, Query(ge=0, le=2**53)]
Answers = dict[str, Any]


async def selection(
    services: ServicesOf,
    since: Moment = None,
    until: Moment = None,
    device: Names = "",
    group: Names = "",
    selector: Annotated[str, Query(max_length=_LONGEST_LIST)] = "",
    model: Name | None = None,
    release: Release = None,
    variant: Name | None = None,
    target: Name | None = None,
) -> Selection:
    """Say what a question is about; a day until now where no time is given."""
    ends = time.time() if until is None else until
    begins = ends - _DAY_S if since is None else since
    if begins >= ends:
        raise UsageError(f"the time asked about ends at {_date(ends)}, before it begins at {_date(begins)}")
    async with services.database.reading() as connection:
        chosen = await choose_devices(connection, listed(device), listed(group), selector)
    return Selection(begins, ends, chosen, model, release, variant, target)


Asked = Annotated[Selection, Depends(selection)]


@router.get("/quantile")
async def ask_quantile(
    services: ServicesOf,
    _viewer: Viewer,
    asked: Asked,
    q: Names = "0.5,0.95,0.99",
    by: Names = "",
    metric: Name = TOTAL,
) -> Answers:
    """Quantiles of the latency in seconds, of another stage of a call or of `confidence`, with intervals."""
    shares = [_share(text) for text in listed(q)]
    found = await quantiles(services.telemetry, Question(asked, dimensions(listed(by)), metric), shares)
    return await _answer(services, asked, found)


@router.get("/rate")
async def ask_rate(services: ServicesOf, _viewer: Viewer, asked: Asked, by: Names = "") -> Answers:
    """Errors by calls, with Wilson intervals."""
    found = await rates(services.telemetry, Question(asked, dimensions(listed(by))))
    return await _answer(services, asked, found)


@router.get("/compare")
async def ask_compare(
    services: ServicesOf,
    _viewer: Viewer,
    asked: Asked,
    against: Annotated[int, Query(ge=0, le=2**53)],
    q: Names = "0.5,0.95,0.99",
    pairing: Pairing = "device-hour",
) -> Answers:
    """One release of a model against another, on the same devices in the same hours."""
    if asked.model is None or asked.release is None:
        raise UsageError("compare needs model and release, and the release it is compared against")
    if asked.release == against:
        raise UsageError(f"release {against} cannot be compared against itself")
    made = await compare(
        services.telemetry,
        asked,
        model=asked.model,
        release=asked.release,
        against=against,
        quantiles=[_share(text) for text in listed(q)],
        pairing=pairing,
    )
    return {**_span(asked), **_plain(asdict(made))}


@router.get("/drift")
async def ask_drift(
    services: ServicesOf,
    _viewer: Viewer,
    asked: Asked,
    by: By = "release",
    level: Annotated[float | None, Query(gt=0, lt=1)] = None,
    slow: bool = False,
) -> Answers:
    """Whether inputs and outputs are distributed as the data that the model was made with.

    `drifted` are findings that are significant over all groups and features together, and large enough to
    matter; the counts stand beside those of the reference. With `slow` small changes that last are summed up,
    hour by hour: what left the reference, in which direction, and since when.
    """
    if slow and level is not None:
        raise UsageError("slow drift has no level: its false alarms are bounded as the answer says")
    if slow:
        return await _slow_drift(services, asked, by)
    level = LEVEL if level is None else level
    found, unknown = await find_drift(services.telemetry, services.references, asked, by, level)
    references = await services.references.load()
    async with services.database.reading() as connection:
        names = await device_names(connection, {one.group.name for one in found} if by == "device" else ())
    answers = []
    for one in found:
        row = asdict(one)
        reference = references[one.group.reference]
        features = {feature.name: feature for feature in reference.counted()}
        feature = features.get(one.feature)
        row["group"]["name"] = names.get(one.group.name, one.group.name)
        row["edges"] = [] if feature is None else list(feature.edges)
        answers.append(_plain(row))
    return {**_span(asked), "level": level, "windows_without_reference": unknown, "answers": answers}


async def _slow_drift(services: ServicesOf, asked: Selection, by: By) -> Answers:
    watch = await watch_slow_drift(services.telemetry, services.references, asked, by)
    found = await asyncio.to_thread(watch.found)
    async with services.database.reading() as connection:
        names = await device_names(connection, {one.group.name for one in found} if by == "device" else ())
    answers = [asdict(one) for one in found[:_MOST_SLOW]]
    for row in answers:
        row["group"]["name"] = names.get(row["group"]["name"], row["group"]["name"])
    return {
        **_span(asked),
        "windows_without_reference": watch.without_reference,
        "windows_left_aside": watch.left_aside,
        "groups": watch.groups,
        "false_alarms_at_most": watch.false_alarms_at_most,
        "found": len(found),
        "answers": answers,
    }


@router.get("/machine")
async def ask_machine(services: ServicesOf, _viewer: Viewer, asked: Asked, by: Names = "device") -> Answers:
    """Temperature, memory, throttling and energy of the machines."""
    _refuse("a machine's figures are of no one", model=asked.model, variant=asked.variant)
    found = await machines(services.telemetry, asked, dimensions(listed(by)))
    return await _answer(services, asked, found)


@router.get("/coverage")
async def ask_coverage(services: ServicesOf, _viewer: Viewer, asked: Asked) -> Answers:
    """What was received, merged, evicted and missing, by device and day.

    `covered` is the share of `asked_s`: of that part of the day that was asked about and has passed.
    """
    _refuse("windows hold all models: coverage is of no one", model=asked.model, variant=asked.variant)
    _refuse("coverage is of devices, of no one", target=asked.target)
    rows = await services.telemetry.coverage(replace(asked, until=min(asked.until, time.time())))
    async with services.database.reading() as connection:
        names = await device_names(connection, {one.device_id for one in rows})
    shown = [
        {"device": names.get(one.device_id, one.device_id), **asdict(one), "covered": covered_share(one)}
        for one in rows
    ]
    shown.sort(key=lambda row: (row["device"], row["day"]))
    return {**_span(asked), "answers": shown}


@router.get("/samples")
async def ask_samples(
    services: ServicesOf, _viewer: Viewer, asked: Asked, limit: Annotated[int, Query(ge=1, le=1000)] = 100
) -> Answers:
    """Inferences that were kept: random ones, errors, and those the model was least sure of."""
    found = await services.telemetry.samples(asked, limit)
    async with services.database.reading() as connection:
        names = await device_names(connection, {one.device_id for one in found})
    newest = sorted(found, key=lambda one: one.sample.at, reverse=True)
    shown = [_plain({"device": names.get(one.device_id, one.device_id), **asdict(one)}) for one in newest]
    return {**_span(asked), "answers": shown}


@router.get("/points")
async def ask_points(
    services: ServicesOf,
    _viewer: Viewer,
    asked: Asked,
    name: Annotated[str, Query(min_length=1, max_length=255)],
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Answers:
    """The newest points of a metric that foreign agents sent by OTLP, the oldest first."""
    _refuse("points of foreign agents have no", model=asked.model, variant=asked.variant, target=asked.target)
    if asked.devices is not None:
        raise UsageError("points are given for all devices; each names its own")
    rows = await services.telemetry.points(name, asked.since, asked.until, limit)
    async with services.database.reading() as connection:
        names = await device_names(connection, {one.device_id for one in rows if one.device_id})
    shown = [
        asdict(one)
        | {
            "device": names.get(one.device_id, one.device_id),
            "attributes": json.loads(one.attributes or "{}"),
            "buckets": json.loads(one.buckets) if one.buckets else None,
        }
        for one in rows
    ]
    return {**_span(asked), "answers": [_plain(row) for row in shown]}


def _date(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _refuse(why: str, **given: str | None) -> None:
    """Refuse a part of a selection that an answer would leave out."""
    for name, value in given.items():
        if value is not None:
            raise UsageError(f"{why} {name}; ask without {name}={value}")


def _share(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"quantile {text!r:.40}: a share is a number from 0 to 1, like 0.95") from None


def _span(asked: Selection) -> Answers:
    return {"since": asked.since, "until": asked.until}


async def _answer(services: ServicesOf, asked: Selection, found: Iterable[Any]) -> Answers:
    """Give answers with devices by their names."""
    rows = [asdict(one) for one in found]
    async with services.database.reading() as connection:
        ids = {row["key"]["device"] for row in rows if "device" in row["key"]}
        names = await device_names(connection, ids)
    for row in rows:
        if "device" in row["key"]:
            row["key"] = {**row["key"], "device": names.get(row["key"]["device"], row["key"]["device"])}
    rows.sort(key=lambda row: tuple(row["key"].values()))
    return {**_span(asked), "answers": [_plain(row) for row in rows]}


def _plain(value: Any) -> Any:
    """Make JSON of it: shares as text, raw inputs as base64, no number for one that is not known."""
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return None if isinstance(value, float) and not math.isfinite(value) else value
