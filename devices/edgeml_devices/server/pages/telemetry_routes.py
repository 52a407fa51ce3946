"""The console's pages of telemetry: the fleet, and one release of one model."""

from __future__ import annotations

import time
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response

from edgeml_devices.server.auth import Actor
from edgeml_devices.server.pages.console import Page, require_viewer
from edgeml_devices.server.pages.queries.devices import release_number
from edgeml_devices.server.pages.queries.release_telemetry import SPANS, release_telemetry
from edgeml_devices.server.pages.queries.telemetry import fleet_telemetry
from edgeml_devices.server.pages.rendering import page
from edgeml_devices.server.services import ServicesOf

router = APIRouter(route_class=Page)
Viewer = Annotated[Actor, Depends(require_viewer)]
Text = Annotated[str, Query(max_length=1000)]


@router.get("/console/telemetry")
async def show_telemetry(services: ServicesOf, actor: Viewer) -> Response:
    """Show what the fleet's models did in the last day."""
    now = time.time()
    view = await fleet_telemetry(services, now)
    return page("telemetry.html", here="telemetry", now=now, actor=actor, view=view)


@router.get("/console/release")
async def show_release(
    services: ServicesOf, actor: Viewer, model: Text, release: Text, span: Text = "24h"
) -> Response:
    """Show one release in the field."""
    now = time.time()
    view = await release_telemetry(services, model, release_number(release), span, now)
    return page("release.html", here="telemetry", now=now, actor=actor, view=view, spans=SPANS)
