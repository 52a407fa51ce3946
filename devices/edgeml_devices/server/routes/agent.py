"""What agents call, besides the poll (:mod:`.polls`)."""

from __future__ import annotations

import time

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from edgeml_devices.messages import Accepted, Enrolled, EnrolRequest, Report
from edgeml_devices.server import auth
from edgeml_devices.server.fleet import checking, enrolment
from edgeml_devices.server.refusals import RefusalError
from edgeml_devices.server.routes.documents import answer_document, answer_of, body_of, read_document
from edgeml_devices.server.services import ServicesOf

router = APIRouter(prefix="/v1", tags=["agent"])


@router.post(
    "/enrol",
    status_code=201,
    openapi_extra=body_of(EnrolRequest),
    responses={201: answer_of(Enrolled, "Let in."), 200: answer_of(Enrolled, "It was let in before.")},
)
async def enrol(request: Request, services: ServicesOf) -> JSONResponse:
    """Let a device in by its join token. The same device token again: the same device."""
    wanted = await read_document(request, EnrolRequest)
    checking.check_facts(wanted.facts)
    try:
        admission = await enrolment.enrol(services.database, wanted, time.time())
    except RefusalError as error:
        raise await auth.refused(services, request, None, str(error)) from error
    return answer_document(admission.enrolled, 201 if admission.is_new else 200)


@router.post(
    "/agent/reports",
    openapi_extra=body_of(Report),
    responses={200: answer_of(Accepted, "Stored, and committed.")},
)
async def report(request: Request, services: ServicesOf, device: auth.Device) -> JSONResponse:
    """Store what a device reports: how its models are, what happened, how they do. Twice is as once."""
    received = await read_document(request, Report)
    if received.device_id != device.id:
        raise await auth.refused(services, request, device, "a device may report for itself only")
    checking.check(received)
    stored = await services.reports.store(received, time.time())
    for refused in stored.refused:
        await services.refusals.note(str(device), refused.about, refused.reason)
    return answer_document(stored.accepted)
