"""The signed repository over HTTP: as any TUF client expects it, and how its offline roles come in."""

from __future__ import annotations

import asyncio
import re
from typing import Annotated, Any, Final

from fastapi import APIRouter, Body, Request, Response
from fastapi.responses import FileResponse
from pydantic import BaseModel

from edgeml.errors import TrustError
from edgeml_devices.server import audit
from edgeml_devices.server.auth import Admin, Operator, Viewer, refused
from edgeml_devices.server.refusals import RefusalError, not_found
from edgeml_devices.server.routes.answers import Name, RepositoryAnswer, RoleAnswer, RolesAnswer
from edgeml_devices.server.services import ServicesOf

router = APIRouter(prefix="/v1/repository", tags=["repository"])
_FILE: Final = re.compile(r"(?:([1-9]\d{0,17})\.)?([A-Za-z0-9][A-Za-z0-9._-]{0,127}?)\.json")
_TARGET: Final = re.compile(r"([0-9a-f]{64})\.(0|[1-9]\d{0,17})\.json")
_FOR_EVER: Final = "public, max-age=31536000, immutable"


class InitBody(BaseModel):
    """The first metadata: signed, as TUF writes it."""

    root: dict[str, Any]
    targets: dict[str, Any]
    delegated: list[dict[str, Any]]


class KeyAnswer(BaseModel):
    """A public key, as TUF writes it."""

    keyid: str
    keytype: str
    scheme: str
    keyval: dict[str, str]


class OnlineKeysAnswer(BaseModel):
    """The server's own keys."""

    snapshot: KeyAnswer
    timestamp: KeyAnswer


@router.get("")
async def show_repository(services: ServicesOf, _viewer: Viewer) -> RepositoryAnswer:
    """Show the newest version of each role and when it expires."""
    async with services.database.reading() as connection:
        roles = await services.repository.roles(connection)
    return RepositoryAnswer(
        initialised=bool(roles),
        roles={
            name: RoleAnswer(version=version, expires_at=at) for name, (version, at) in sorted(roles.items())
        },
    )


@router.get("/metadata/{file}", response_class=Response)
async def get_metadata(services: ServicesOf, file: str) -> Response:
    """Get metadata: `timestamp.json`, `3.snapshot.json`, `1.root.json`, `2.FAMILY.json`."""
    found = _FILE.fullmatch(file)
    if found is None or (found[1] is None) != (found[2] == "timestamp"):
        raise not_found("metadata", file)
    content = await services.repository.file(found[2], None if found[1] is None else int(found[1]))
    if content is None:
        raise not_found("metadata", file)
    caching = "no-cache" if found[1] is None else _FOR_EVER
    return Response(content, media_type="application/json", headers={"Cache-Control": caching})


@router.get("/targets/models/{model}/{file}", response_class=Response)
async def get_target(services: ServicesOf, model: Name, file: str) -> Response:
    """Get a manifest that was signed: `SHA256.RELEASE.json`."""
    found = _TARGET.fullmatch(file)
    signed = None
    if found is not None:
        async with services.database.reading() as connection:
            signed = await services.repository.manifest_sha256(connection, model, int(found[2]))
    if found is None or signed is None or signed[1] != found[1]:
        raise not_found("target", f"models/{model}/{file}")
    return FileResponse(
        services.blobs.path(found[1]), media_type="application/json", headers={"Cache-Control": _FOR_EVER}
    )


@router.get("/online-keys")
async def get_online_keys(services: ServicesOf, _viewer: Viewer) -> OnlineKeysAnswer:
    """Get the public halves of the server's newest keys, for a root to name."""
    return OnlineKeysAnswer.model_validate(await asyncio.to_thread(services.repository.keys.public))


@router.post("/online-keys", status_code=201)
async def make_online_keys(services: ServicesOf, admin: Admin) -> OnlineKeysAnswer:
    """Make the next pair of keys; the server signs with them once a root names them."""
    await asyncio.to_thread(services.repository.keys.make_pair)
    public = await asyncio.to_thread(services.repository.keys.public)
    async with services.database.writing() as tx:
        keyids = {role: key["keyid"] for role, key in public.items()}
        await audit.record(tx, admin, "repository.online_keys", "repository", keyids)
    return OnlineKeysAnswer.model_validate(public)


@router.post("/init", status_code=201)
async def init_repository(
    services: ServicesOf, admin: Admin, body: Annotated[InitBody, Body()]
) -> RolesAnswer:
    """Take the first metadata of all roles, once."""
    return RolesAnswer(roles=await services.repository.init(admin, body.root, body.targets, body.delegated))


@router.put(
    "/metadata/{role}",
    openapi_extra={
        "requestBody": {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}}
    },
)
async def put_metadata(request: Request, services: ServicesOf, operator: Operator, role: Name) -> RolesAnswer:
    """Take the next version of a role's signed metadata; root and targets from an admin only."""
    if role in {"root", "targets"} and not operator.may("admin"):
        raise await refused(services, request, operator, f"{role} needs the role admin")
    content = await request.body()
    if not content:
        raise RefusalError(400, "the body must be signed metadata")
    try:
        return RolesAnswer(roles=await services.repository.take(operator, role, content))
    except TrustError as error:
        raise await refused(services, request, operator, str(error)) from error
