"""The console's addresses. Each page reads its numbers, and renders them; nothing here writes."""

from __future__ import annotations

import time
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Query, Response
from fastapi.responses import RedirectResponse

from edgeml.errors import UsageError
from edgeml_devices.messages import State
from edgeml_devices.server.auth import Actor
from edgeml_devices.server.pages.console import Page, require_viewer
from edgeml_devices.server.pages.queries.audit import audit_page
from edgeml_devices.server.pages.queries.device_telemetry import device_telemetry
from edgeml_devices.server.pages.queries.devices import (
    DeviceList,
    Filter,
    device_list,
    device_view,
    release_number,
)
from edgeml_devices.server.pages.queries.overview import overview
from edgeml_devices.server.pages.queries.presence import PRESENCES
from edgeml_devices.server.pages.queries.releases import release_list
from edgeml_devices.server.pages.queries.rollouts import rollout_list, rollout_view
from edgeml_devices.server.pages.rendering import STYLE, page
from edgeml_devices.server.pages.signin import router as signin
from edgeml_devices.server.pages.telemetry_routes import router as telemetry
from edgeml_devices.server.refusals import not_found
from edgeml_devices.server.services import ServicesOf

router = APIRouter(route_class=Page, include_in_schema=False)
router.include_router(signin)
router.include_router(telemetry)
Viewer = Annotated[Actor, Depends(require_viewer)]
Before = Annotated[int | None, Query(ge=1, le=2**63 - 1)]
Text = Annotated[str, Query(max_length=4000)]
REFRESH_S: Final = 10


@router.get("/")
async def root() -> Response:
    """Lead people who type the server's address to the console."""
    return RedirectResponse("/console", 307)


@router.get("/console/style.css")
async def style() -> Response:
    """Give the one style sheet."""
    return Response(STYLE, media_type="text/css")


@router.get("/console")
async def show_overview(services: ServicesOf, actor: Viewer) -> Response:
    """Show the whole fleet."""
    now = time.time()
    async with services.database.reading() as connection:
        view = await overview(connection, now)
    return page("overview.html", here="overview", now=now, actor=actor, view=view)


@router.get("/console/devices")
async def show_devices(
    services: ServicesOf,
    actor: Viewer,
    selector: Text = "",
    seen: Text = "",
    runs: Text = "",
    state: Text = "",
    after: Text = "",
) -> Response:
    """Show a page of devices; a filter that cannot be read is answered with what is wrong with it."""
    now = time.time()
    chosen = Filter(selector.strip(), seen, runs.strip(), state)
    found, fault = DeviceList((), 0, None), ""
    try:
        async with services.database.reading() as connection:
            found = await device_list(connection, chosen, after, now)
    except UsageError as error:
        fault = str(error)
    choices = {"presences": PRESENCES, "states": [one.value for one in State]}
    context: dict[str, Any] = {"view": found, "chosen": chosen, "fault": fault, "after": after, **choices}
    return page("devices.html", 400 if fault else 200, here="devices", now=now, actor=actor, **context)


@router.get("/console/devices/{device}")
async def show_device(services: ServicesOf, actor: Viewer, device: str, before: Before = None) -> Response:
    """Show one device, by id or name."""
    now = time.time()
    async with services.database.reading() as connection:
        view = await device_view(connection, device, before, now)
    told = await device_telemetry(services, view.row.id, view.row.name, now)
    return page("device.html", here="devices", now=now, actor=actor, view=view, before=before, told=told)


@router.get("/console/releases")
async def show_releases(services: ServicesOf, actor: Viewer, after: Text = "") -> Response:
    """Show a page of releases; ``after`` is ``MODEL/RELEASE``."""
    now = time.time()
    model, _, release = after.rpartition("/")
    last = (model, release_number(release)) if after else None
    async with services.database.reading() as connection:
        view = await release_list(connection, last)
    return page("releases.html", here="releases", now=now, actor=actor, view=view, after=after)


@router.get("/console/rollouts")
async def show_rollouts(services: ServicesOf, actor: Viewer, before: Text = "") -> Response:
    """Show a page of rollouts."""
    now = time.time()
    async with services.database.reading() as connection:
        view = await rollout_list(connection, before)
    return page("rollouts.html", here="rollouts", now=now, actor=actor, view=view, before=before)


@router.get("/console/rollouts/{rollout}")
async def show_rollout(services: ServicesOf, actor: Viewer, rollout: str, refresh: Text = "") -> Response:
    """Show one rollout; while it is open the page loads itself again, unless ``refresh=off``."""
    now = time.time()
    async with services.database.reading() as connection:
        view = await rollout_view(connection, rollout, now)
    if view is None:
        raise not_found("rollout", rollout)
    refresh_s = REFRESH_S if view.is_open and refresh != "off" else None
    return page("rollout.html", here="rollouts", now=now, actor=actor, view=view, refresh_s=refresh_s)


@router.get("/console/audit")
async def show_audit(services: ServicesOf, actor: Viewer, before: Before = None) -> Response:
    """Show a page of the audit log."""
    now = time.time()
    async with services.database.reading() as connection:
        view = await audit_page(connection, before)
    return page("audit.html", here="audit", now=now, actor=actor, view=view, before=before)


@router.get("/console/{rest:path}", dependencies=[Depends(require_viewer)])
async def show_nothing(rest: str) -> Response:
    """Say that there is no such page."""
    raise not_found("page", f"/console/{rest}")
