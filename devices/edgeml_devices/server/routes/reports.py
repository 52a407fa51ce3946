"""``POST /v1/reports``: telemetry of a device, answered after the commit, as plain ASGI for its cost."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from pydantic import TypeAdapter
from starlette.types import Receive, Scope, Send

from edgeml.telemetry.report import CONTENT_JSON, CONTENT_MSGPACK, Acknowledged, Batch
from edgeml_devices.server.fleet.directory import Known
from edgeml_devices.server.guard import REPORTS, guarded
from edgeml_devices.server.protocol import Answer, Headers
from edgeml_devices.server.refusals import RefusalError
from edgeml_devices.server.routes.calling import calling_device, known_device
from edgeml_devices.server.services import Services
from edgeml_devices.server.telemetry import bounds, wire
from edgeml_devices.server.telemetry.dating import dates
from edgeml_devices.server.telemetry.store import Incoming, Stored, Verdict
from edgeml_devices.server.telemetry.writer import FullError

PATH: Final = REPORTS
_AGAIN_S: Final = (5, 30)
"""``Retry-After``: spread, so that devices do not come at once."""


async def answer_reports(services: Services, scope: Scope, receive: Receive, send: Send) -> None:
    """Store a batch of reports, each once.

    Raises:
        RefusalError: not a device's token; no sound batch; a fork; too much waits, or came of this device.
        MessageError: a report that cannot be true, or names too much.
        HTTPException: a body that is too long or too slow.
    """
    headers = dict(scope["headers"])
    known = await calling_device(
        services, headers.get(b"authorization", b""), scope, "only a device reports telemetry"
    )
    if not services.directory.fresh:
        await services.directory.refresh([known.id])
        if not services.directory.knows(known):
            raise RefusalError(401, "this device was retired")
    body = await _body(guarded(receive, scope, services.settings.limits))
    batch = _read(headers, body)
    services.quotas.check(known.id, known.target, batch, len(body))
    services.directory.note_seen(known)
    stored = await _stored(services, _incoming(known, batch, time.time()))
    if stored[0].verdict is Verdict.FORK:
        message = f"another device, or an older copy of this one, sent telemetry of epoch {batch.epoch}"
        await services.refusals.note(f"device:{known.id}", f"POST {PATH}", message)
        raise RefusalError(
            409,
            f"{message}; begin a new epoch with the windows after acked_through",
            acked_through=stored[0].acked_through,
        )
    answer = _acknowledge(stored[-1])
    await send(
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [
                (b"content-type", b"application/json"),
                (b"content-length", b"%d" % len(answer)),
            ],
        }
    )
    await send({"type": "http.response.body", "body": answer})


def take_reports(services: Services, headers: Headers, body: bytes, answer: Answer) -> None:
    """Store a batch as :func:`answer_reports` does, if nothing stands against it; else leave it to that."""
    fields = dict(headers)
    known = known_device(services, fields.get(b"authorization", b""))
    if known is None or not services.directory.fresh:
        answer(None)
        return
    try:
        batch = _read(fields, body)
        services.quotas.check(known.id, known.target, batch, len(body))
        stored = services.collector.submit(_incoming(known, batch, time.time()))
    except Exception:  # noqa: BLE001 - told by the ordinary way, which meets the same
        answer(None)
        return
    services.directory.note_seen(known)

    def tell(stored: asyncio.Future[list[Stored]]) -> None:
        sound = not stored.cancelled() and stored.exception() is None
        if sound and (last := stored.result()[-1]).verdict is not Verdict.FORK:
            answer(_acknowledge(last))
        else:
            answer(None)

    stored.add_done_callback(tell)


def _read(headers: Mapping[bytes, bytes], body: bytes) -> Batch:
    content_type = headers.get(b"content-type", b"").decode("latin-1")
    batch = wire.decode(body, content_type, headers.get(b"content-encoding", b"").decode("latin-1"))
    bounds.check(batch)
    return batch


def _acknowledge(last: Stored) -> bytes:
    return wire.encode(Acknowledged(last.acked_through, last.gaps, time.time()))


async def _body(receive: Receive) -> bytes:
    message = await receive()
    parts = [message.get("body", b"")]
    while message.get("more_body"):
        message = await receive()
        parts.append(message.get("body", b""))
    if message["type"] == "http.disconnect":
        raise RefusalError(400, "the body ended too soon")
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _incoming(known: Known, batch: Batch, received_at: float) -> list[Incoming]:
    return [
        Incoming(known.id, batch.epoch, report, at, received_at, known.target)
        for report, at in zip(batch.reports, dates(batch, received_at), strict=True)
    ]


async def _stored(services: Services, incoming: Sequence[Incoming]) -> list[Stored]:
    try:
        return await services.collector.submit(incoming)
    except FullError:
        wait_s = random.randint(*_AGAIN_S)  # noqa: S311 - spreads devices, no secret
        raise RefusalError(
            503,
            "more telemetry waits than can be stored; try again later",
            headers={"Retry-After": str(wait_s)},
        ) from None


def document(openapi: dict[str, Any]) -> None:
    """Add the call to an OpenAPI document: its route is not FastAPI's."""
    schemas = openapi.setdefault("components", {}).setdefault("schemas", {})
    for kind, mode in ((Batch, "validation"), (Acknowledged, "serialization")):
        schema = TypeAdapter(kind).json_schema(
            ref_template="#/components/schemas/Telemetry{model}",
            mode=mode,  # type: ignore[arg-type]
        )
        definitions = {f"Telemetry{name}": one for name, one in schema.pop("$defs", {}).items()}
        definitions = _finite(definitions)
        schemas |= definitions | {f"Telemetry{kind.__name__}": schema}
    batch = {"schema": {"$ref": "#/components/schemas/TelemetryBatch"}}
    done = {"schema": {"$ref": "#/components/schemas/TelemetryAcknowledged"}}
    openapi["paths"][PATH] = {
        "post": {
            "tags": ["agent"],
            "summary": "Telemetry of the calling device",
            "description": "Answers after the commit. The same reports again are acknowledged, not stored.",
            "operationId": "telemetry_reports",
            "security": [{"HTTPBearer": []}],
            "requestBody": {"required": True, "content": {CONTENT_JSON: batch, CONTENT_MSGPACK: batch}},
            "responses": {
                "200": {"description": "Stored.", "content": {"application/json": done}},
                "409": {"description": "A fork: `acked_through` says what was stored before."},
                "429": {"description": "Too much of this device; `Retry-After` says when to come again."},
                "503": {"description": "Too much waits; `Retry-After` says when to come again."},
            },
        }
    }


def _finite(node: Any) -> Any:
    """Leave out defaults that JSON cannot hold."""
    if isinstance(node, dict):
        return {key: _finite(value) for key, value in node.items() if not _is_infinite(value)}
    return [_finite(one) for one in node] if isinstance(node, list) else node


def _is_infinite(value: Any) -> bool:
    return isinstance(value, float) and math.isinf(value)
