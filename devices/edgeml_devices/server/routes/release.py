"""Releases over HTTP."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Path, Query, Response
from sqlalchemy import select

from edgeml import manifest_json
from edgeml_devices.server import releases
from edgeml_devices.server.auth import Operator, Viewer
from edgeml_devices.server.rollouts.withdrawing import withdraw
from edgeml_devices.server.routes.answers import Name, ReleaseAnswer, ReleaseBody, ReleaseDetail, ReleaseList
from edgeml_devices.server.services import ServicesOf
from edgeml_devices.server.tables import releases as table

router = APIRouter(prefix="/v1/releases", tags=["releases"])
Number = Annotated[int, Path(ge=0, le=2**63 - 1)]
_PLACE = Annotated[str, Query(max_length=160, pattern=r"^([A-Za-z0-9._-]+/\d{1,18})?$")]


@router.get("")
async def list_releases(
    services: ServicesOf,
    _viewer: Viewer,
    after: _PLACE = "",
    limit: Annotated[int, Query(ge=1, le=1000)] = 200,
) -> ReleaseList:
    """List releases of all models, by model, the newest first; `after`: MODEL/RELEASE."""
    statement = select(table).order_by(table.c.model, table.c.release.desc())
    if after:
        model, _, number = after.partition("/")
        behind = (table.c.model == model) & (table.c.release < int(number))
        statement = statement.where((table.c.model > model) | behind)
    async with services.database.reading() as connection:
        rows = (await connection.execute(statement.limit(limit + 1))).mappings().all()
    found = [ReleaseAnswer(**row) for row in rows[:limit]]
    last = f"{found[-1].model}/{found[-1].release}" if len(rows) > limit else None
    return ReleaseList(releases=found, next=last)


@router.get("/{model}")
async def list_releases_of(services: ServicesOf, _viewer: Viewer, model: Name) -> ReleaseList:
    """List a model's releases, the newest first."""
    statement = select(table).where(table.c.model == model).order_by(table.c.release.desc())
    async with services.database.reading() as connection:
        rows = (await connection.execute(statement)).mappings().all()
    return ReleaseList(releases=[ReleaseAnswer(**row) for row in rows])


@router.get("/{model}/{release}")
async def show_release(services: ServicesOf, _viewer: Viewer, model: Name, release: Number) -> ReleaseDetail:
    """Show a release with its manifest."""
    async with services.database.reading() as connection:
        row = await releases.find(connection, model, release)
    sha256 = row["manifest_sha256"]
    found = await asyncio.to_thread(releases.read_manifest, services.blobs, sha256, f"{model}/{release}")
    return ReleaseDetail(**row, manifest=manifest_json.to_json(found))


@router.post("", status_code=201, responses={200: {"model": ReleaseAnswer, "description": "Listed before."}})
async def publish_release(
    services: ServicesOf, operator: Operator, body: ReleaseBody, response: Response
) -> ReleaseAnswer:
    """List a signed release whose files are all here; 409 names in `missing` the hashes that are not."""
    row, is_new = await releases.publish(
        services.database, services.repository, services.blobs, operator, body.model, body.release
    )
    response.status_code = 201 if is_new else 200
    return ReleaseAnswer(**row)


@router.post("/{model}/{release}/withdraw")
async def withdraw_release(
    services: ServicesOf, operator: Operator, model: Name, release: Number
) -> ReleaseAnswer:
    """Let no device be told to run a release any more; those that run it go on."""
    return ReleaseAnswer(**await withdraw(services.database, operator, model, release))
