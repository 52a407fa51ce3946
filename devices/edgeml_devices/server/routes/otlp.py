"""``POST /v1/metrics``: metrics of foreign agents by OTLP/HTTP, stored at least once."""

from __future__ import annotations

import time
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Request, Response

from edgeml_devices.server import auth
from edgeml_devices.server.auth import Actor, require_role
from edgeml_devices.server.services import ServicesOf
from edgeml_devices.server.telemetry import otlp
from edgeml_devices.server.telemetry.wire import inflate

router = APIRouter(tags=["agent"])
_SENDERS: Final = ("device", "operator", "admin")
_ROW_BYTES: Final = 200
"""Of a point, about, besides its attributes and buckets."""


@router.post(
    "/v1/metrics",
    response_class=Response,
    openapi_extra={
        "requestBody": {"required": True, "content": {otlp.CONTENT_PROTOBUF: {}, otlp.CONTENT_JSON: {}}}
    },
)
async def receive(
    request: Request, services: ServicesOf, actor: Annotated[Actor, Depends(require_role("device"))]
) -> Response:
    """Store what an OpenTelemetry exporter sends. What it sends again is stored again: OTLP has no key."""
    if actor.role not in _SENDERS:
        raise await auth.refused(services, request, actor, "a viewer looks, and sends nothing")
    content_type = request.headers.get("content-type", "")
    body = inflate(
        await request.body(),
        request.headers.get("content-encoding", ""),
        services.settings.limits.document_bytes,
    )
    device_id = actor.id if actor.role == "device" else ""
    points, left_out = otlp.read_points(body, content_type, device_id, time.time())
    if points and device_id:
        # a resource's attributes are stored with each of its points
        services.quotas.spend(
            device_id, sum(_ROW_BYTES + len(one.attributes) + len(one.buckets) for one in points)
        )
    if points:
        await services.telemetry.append_points(points)
    content, kind = otlp.answer(content_type, left_out)
    return Response(content, media_type=kind)
