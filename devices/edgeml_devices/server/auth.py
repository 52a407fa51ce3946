"""Who calls: bearer tokens of 256 random bits, kept as SHA-256, and roles that include those below."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Final, Literal

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy import insert, select

from edgeml_devices.server import audit
from edgeml_devices.server.fleet.labels import check_name
from edgeml_devices.server.refusals import RefusalError
from edgeml_devices.server.services import Services, get_services
from edgeml_devices.server.tables import tokens
from edgeml_devices.server.transaction import Transaction

Role = Literal["admin", "operator", "viewer", "device"]
RANKS: Final = {"device": 0, "viewer": 1, "operator": 2, "admin": 3}
_BEARER = HTTPBearer(auto_error=False, description="A token: `edgeml tokens create`, or a device's own.")


@dataclass(frozen=True, slots=True)
class Actor:
    """Whoever calls, known by a token."""

    role: Role
    id: str
    """Of the token, or of the device."""
    name: str

    def __str__(self) -> str:
        return f"device:{self.id}" if self.role == "device" else f"{self.role}:{self.name}"

    def may(self, role: Role) -> bool:
        """Say whether it may do what the role may."""
        return RANKS[self.role] >= RANKS[role]


def hash_token(token: str) -> bytes:
    """Give a token's SHA-256, by which it is found: no comparison of secrets, so no timing."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def new_secret() -> str:
    """Make a token: 256 random bits, URL-safe."""
    return secrets.token_urlsafe(32)


async def make_token(tx: Transaction, actor: object, name: str, role: Role) -> tuple[str, str]:
    """Make a token of a person or a program; give its id and the secret, which is kept nowhere.

    Raises:
        UsageError: it cannot be a name.
        RefusalError: 409: there is a token of this name, or there was one: the audit log tells them by it.
    """
    check_name("token", name)
    if (await tx.connection.execute(select(tokens.c.id).where(tokens.c.name == name))).first() is not None:
        raise RefusalError(409, f"a token {name} exists, or was revoked; names are not used again")
    secret, id_ = new_secret(), secrets.token_hex(8)
    row = {
        "id": id_,
        "name": name,
        "role": role,
        "sha256": hash_token(secret).hex(),
        "created_at": time.time(),
    }
    await tx.connection.execute(insert(tokens).values(row))
    await audit.record(tx, actor, "token.create", name, {"role": role, "id": id_})
    return id_, secret


async def find_actor(services: Services, token: str) -> Actor | None:
    """Give whose token it is; ``None``: nobody's, or a revoked one."""
    sha256 = hash_token(token)
    known = services.directory.by_token(sha256)
    if known is None:
        async with services.database.reading() as connection:
            statement = select(tokens.c.role, tokens.c.id, tokens.c.name).where(
                tokens.c.sha256 == sha256.hex(), tokens.c.revoked_at.is_(None)
            )
            row = (await connection.execute(statement)).first()
        if row is not None:
            return Actor(row.role, row.id, row.name)
        known = await services.directory.find(sha256)
    if known is None:
        return None
    services.directory.note_seen(known)
    return Actor("device", known.id, known.id)


async def refused(services: Services, request: Request, actor: Actor | None, message: str) -> RefusalError:
    """Have a refusal in the audit log, and give the error to raise: 401 to a stranger, else 403."""
    who = str(actor) if actor else f"anonymous:{caller_address(request)}"
    what = f"{request.method} {request.url.path}"
    await services.refusals.note(who, what, message)
    if actor is None:
        return RefusalError(401, message, headers={"WWW-Authenticate": "Bearer"})
    return RefusalError(403, message)


def caller_address(request: Request) -> str:
    """Give the address of whoever called, as the proxy says it where there is one."""
    return request.client.host if request.client else "unknown"


def require_role(role: Role) -> Callable[..., Awaitable[Actor]]:
    """Give a dependency that lets those through who may do what ``role`` may."""

    async def check(
        request: Request,
        services: Annotated[Services, Depends(get_services)],
        bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)],
    ) -> Actor:
        if bearer is None or not bearer.credentials:
            raise await refused(services, request, None, "no token; send Authorization: Bearer TOKEN")
        actor = await find_actor(services, bearer.credentials)
        if actor is None:
            raise await refused(services, request, None, "this token is unknown, or it was revoked")
        if not actor.may(role):
            raise await refused(
                services, request, actor, f"this needs the role {role}, the token has {actor.role}"
            )
        return actor

    return check


async def require_device(
    request: Request,
    services: Annotated[Services, Depends(get_services)],
    actor: Annotated[Actor, Depends(require_role("device"))],
) -> Actor:
    """Let a device through, and nobody else: it speaks for itself."""
    if actor.role != "device":
        raise await refused(services, request, actor, "only a device may report for itself")
    return actor


Admin = Annotated[Actor, Depends(require_role("admin"))]
Operator = Annotated[Actor, Depends(require_role("operator"))]
Viewer = Annotated[Actor, Depends(require_role("viewer"))]
Device = Annotated[Actor, Depends(require_device)]
