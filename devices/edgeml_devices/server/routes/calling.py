"""Which device calls a route that passes FastAPI by: found in memory, by its token."""

from __future__ import annotations

from starlette.requests import Request
from starlette.types import Scope

from edgeml_devices.server import auth
from edgeml_devices.server.fleet.directory import Known
from edgeml_devices.server.services import Services


async def calling_device(services: Services, authorization: bytes, scope: Scope, others: str) -> Known:
    """Give the device whose token it is.

    Args:
        services: of the server.
        authorization: the header.
        scope: of the request, for the audit log.
        others: what people and programs are told who have a token, too.

    Raises:
        RefusalError: 401: nobody's token; 403: not a device's.
    """
    scheme, _, token = authorization.partition(b" ")
    if scheme.lower() == b"bearer" and token:
        sha256 = auth.hash_token(token.strip().decode("latin-1"))
        known = services.directory.by_token(sha256) or await services.directory.find(sha256)
        if known is not None:
            return known
        request = Request(scope)
        actor = await auth.find_actor(services, token.strip().decode("latin-1"))
        if actor is not None:
            raise await auth.refused(services, request, actor, others)
        raise await auth.refused(services, request, None, "this token is unknown, or it was revoked")
    raise await auth.refused(services, Request(scope), None, "no token; send Authorization: Bearer TOKEN")


def known_device(services: Services, authorization: bytes) -> Known | None:
    """Give the device whose token it is, if this process has it in memory."""
    scheme, _, token = authorization.partition(b" ")
    if scheme.lower() != b"bearer":
        return None
    return services.directory.by_token(auth.hash_token(token.strip().decode("latin-1")))
