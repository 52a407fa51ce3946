"""``GET /metrics``: for Prometheus, with a viewer's token as its bearer token."""

from __future__ import annotations

import time
from collections import Counter
from typing import Final

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST
from sqlalchemy import func, select

from edgeml_devices.server.alerts.tables import alerts
from edgeml_devices.server.auth import Viewer
from edgeml_devices.server.services import Services, ServicesOf
from edgeml_devices.server.tables import devices
from edgeml_devices.server.telemetry.exposition import Fleet, exposition
from edgeml_devices.server.telemetry.machines import machines
from edgeml_devices.server.telemetry.store import Selection

router = APIRouter(tags=["telemetry"])
_ONLINE_S: Final = 120.0
_TEMPERATURES_S: Final = 300.0
_DAY_S: Final = 86400
_TEMPERATURE: Final = "temperature_celsius"


@router.get("/metrics", response_class=Response)
async def scrape(services: ServicesOf, _viewer: Viewer) -> Response:
    """Counters and histograms by model, release, variant and kind of machine, since the store was made."""
    now = time.time()
    counts = await _counts(services, now)
    recent = Selection(now - _TEMPERATURES_S, now)
    kinds = await machines(services.telemetry, recent, ("target",))
    lost: Counter[str] = Counter()
    for day in await services.telemetry.coverage(Selection(now // _DAY_S * _DAY_S, now)):
        for name in ("missing", "evicted", "damaged", "overwritten"):
            lost[name] += getattr(day, name)
    fleet = Fleet(
        await services.telemetry.totals(),
        counts[0],
        {
            str(one.key["target"]): one.quantities[_TEMPERATURE].max
            for one in kinds
            if _TEMPERATURE in one.quantities
        },
        lost,
        counts[1],
    )
    return Response(exposition(fleet), media_type=CONTENT_TYPE_LATEST)


async def _counts(services: Services, now: float) -> tuple[dict[str, int], dict[tuple[str, str], int]]:
    """Count devices by whether they are heard of, and alerts by rule and state."""
    here = select(func.count()).select_from(devices).where(devices.c.retired_at.is_(None))
    by_state = select(alerts.c.rule, alerts.c.state, func.count().label("number"))
    async with services.database.reading() as connection:
        every = (await connection.execute(here)).scalar() or 0
        online = (await connection.execute(here.where(devices.c.last_seen > now - _ONLINE_S))).scalar() or 0
        rows = await connection.execute(by_state.group_by(alerts.c.rule, alerts.c.state))
        found = {(row.rule, row.state): row.number for row in rows}
    return {"online": online, "silent": every - online}, found
