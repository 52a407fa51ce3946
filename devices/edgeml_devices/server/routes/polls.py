"""``GET /v1/agent/state``: the long-poll, answered from memory, as plain ASGI for its cost."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Any, Final
from urllib.parse import parse_qs

from pydantic import TypeAdapter
from starlette.types import Scope, Send

from edgeml_devices.messages import DesiredState
from edgeml_devices.server.fleet.directory import Known
from edgeml_devices.server.refusals import RefusalError
from edgeml_devices.server.routes.calling import calling_device
from edgeml_devices.server.services import Services

_AGAIN_S: Final = (10, 30)
"""``Retry-After`` of those that are told to come back later: spread, so that they do not come at once."""
PATH: Final = "/v1/agent/state"
_EARLY: Final = 0.1
"""A poll ends up to this share before its time, at random, so that devices do not call in step."""


async def answer_poll(services: Services, scope: Scope, send: Send) -> None:
    """Answer with the desired state once its generation is another than the device's; 304 after ``wait``.

    Raises:
        RefusalError: not a device's token, a wrong ``wait``, too many polls.
    """
    authorization, etag = b"", b""
    for name, value in scope["headers"]:
        if name == b"authorization":
            authorization = value
        elif name == b"if-none-match":
            etag = value
    known = await calling_device(services, authorization, scope, "only a device has a desired state")
    wait_s = _wait(scope["query_string"], services.settings.limits.wait_s)
    directory = services.directory
    if not directory.fresh:
        await directory.refresh([known.id])
    if wait_s and _etag(known) == etag and directory.knows(known):
        await _wait_for_change(services, known, wait_s)
    directory.note_seen(known)
    if not directory.knows(known):
        raise RefusalError(401, "this device was retired")
    if _etag(known) == etag:
        await _send(send, 304, known, b"")
    else:
        await _send(send, 200, known, known.answer(time.time()))


async def _wait_for_change(services: Services, known: Known, wait_s: float) -> None:
    directory, limits = services.directory, services.settings.limits
    if directory.waiting >= limits.waiting_polls:
        raise _later(503, "too many devices wait for a change")
    if len(known.waiting) >= limits.polls_per_device and not (oldest := known.waiting[0]).done():
        oldest.set_exception(_later(429, "other polls with this device's token took the place of this one"))
    loop = asyncio.get_running_loop()
    waiter: asyncio.Future[bool] = loop.create_future()
    known.waiting.append(waiter)
    directory.waiting += 1
    timer = loop.call_later(wait_s * (1 - _EARLY * random.random()), _end, waiter)  # noqa: S311 - spread, no secret
    try:
        await waiter
    finally:
        timer.cancel()
        known.waiting.remove(waiter)
        directory.waiting -= 1


def _end(waiter: asyncio.Future[bool]) -> None:
    if not waiter.done():
        waiter.set_result(False)


def _etag(known: Known) -> bytes:
    return b'"%d"' % known.generation


def _wait(query: bytes, longest_s: float) -> float:
    if not query:
        return 0.0
    text = parse_qs(query.decode("latin-1")).get("wait", ["0"])[-1]
    try:
        wait_s = float(text)
    except ValueError:
        wait_s = -1.0
    if not 0 <= wait_s < float("inf"):
        raise RefusalError(400, "wait must be a number of seconds, 0 or more")
    return min(wait_s, longest_s)


def _later(status: int, message: str) -> RefusalError:
    return RefusalError(status, message, headers={"Retry-After": str(random.randint(*_AGAIN_S))})  # noqa: S311 - as above


async def _send(send: Send, status: int, known: Known, body: bytes) -> None:
    headers = [(b"etag", _etag(known)), (b"cache-control", b"no-store")]
    if status != 304:  # noqa: PLR2004 - HTTP's
        headers += [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def document(openapi: dict[str, Any]) -> None:
    """Add the poll to an OpenAPI document: its route is not FastAPI's."""
    schema = TypeAdapter(DesiredState).json_schema(ref_template="#/components/schemas/{model}")
    schemas = openapi.setdefault("components", {}).setdefault("schemas", {})
    schemas |= schema.pop("$defs", {}) | {"DesiredState": schema}
    wait = {"name": "wait", "in": "query", "schema": {"type": "number", "minimum": 0, "default": 0}}
    known = {"name": "If-None-Match", "in": "header", "schema": {"type": "string"}}
    body = {"application/json": {"schema": {"$ref": "#/components/schemas/DesiredState"}}}
    openapi["paths"][PATH] = {
        "get": {
            "tags": ["agent"],
            "summary": "What the calling device is to be",
            "description": "Answers when the generation is not the one named, or after `wait` seconds.",
            "operationId": "agent_state",
            "security": [{"HTTPBearer": []}],
            "parameters": [
                wait | {"description": "Seconds to wait for a change."},
                known | {"description": "The generation that the device knows, in quotes."},
            ],
            "responses": {
                "200": {"description": "The desired state; `ETag` is its generation.", "content": body},
                "304": {"description": "No change."},
            },
        }
    }
