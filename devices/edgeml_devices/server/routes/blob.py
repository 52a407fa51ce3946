"""Blobs over HTTP: ranges down, resumable up."""

from __future__ import annotations

import re
from typing import Final

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import FileResponse
from starlette.requests import ClientDisconnect

from edgeml_devices.server.auth import Operator, require_role
from edgeml_devices.server.refusals import RefusalError, not_found
from edgeml_devices.server.services import ServicesOf

router = APIRouter(prefix="/v1/blobs/sha256", tags=["blobs"])
_ANYBODY: Final = Depends(require_role("device"))
_RANGE: Final = re.compile(r"bytes (?:(\d{1,18})-(\d{1,18})|\*)/(\d{1,18})")


class _BlobResponse(FileResponse):
    """Larger pieces than Starlette's: a blob has megabytes."""

    chunk_size = 256 * 1024


@router.head("/{sha256}", response_class=Response, include_in_schema=False, dependencies=[_ANYBODY])
@router.get(
    "/{sha256}",
    response_class=Response,
    dependencies=[_ANYBODY],
    responses={206: {"description": "The range that was asked for."}},
)
async def get_blob(services: ServicesOf, sha256: str) -> Response:
    """Download a blob, or a range of it."""
    if services.blobs.size_bytes(sha256) is None:
        raise not_found("blob", sha256)
    headers = {"ETag": f'"{sha256}"', "Cache-Control": "private, max-age=31536000, immutable"}
    return _BlobResponse(services.blobs.path(sha256), media_type="application/octet-stream", headers=headers)


@router.put(
    "/{sha256}",
    status_code=201,
    response_class=Response,
    responses={
        200: {"description": "It was there."},
        308: {"description": "`Range` says how much is there."},
    },
)
async def put_blob(request: Request, services: ServicesOf, _operator: Operator, sha256: str) -> Response:
    """Upload a blob, or a piece of it.

    `Content-Range: bytes A-B/TOTAL` says which; `bytes */TOTAL` with no body asks how much is there.
    """
    if services.blobs.size_bytes(sha256) is not None:
        return Response(status_code=200)
    start, length, total = _range(request)
    if length is None and total:
        return _incomplete(services.blobs.arrived_bytes(sha256))
    try:
        whole = await services.blobs.append(sha256, start, total, request.stream())
    except ClientDisconnect:
        return _incomplete(services.blobs.arrived_bytes(sha256))  # to nobody: the caller asks again
    return Response(status_code=201) if whole else _incomplete(services.blobs.arrived_bytes(sha256))


def _range(request: Request) -> tuple[int, int | None, int]:
    """Give where the piece begins, its length (``None``: a question only), and the blob's size."""
    text, length = request.headers.get("content-range"), request.headers.get("content-length")
    if text is None:
        if length is None or not length.isdecimal():
            raise RefusalError(400, "Content-Length or Content-Range must say how many bytes come")
        return 0, int(length), int(length)
    found = _RANGE.fullmatch(text)
    if found is None:
        raise RefusalError(400, f"Content-Range must be bytes A-B/TOTAL or bytes */TOTAL, not {text[:80]!r}")
    total = int(found[3])
    if found[1] is None:
        return 0, None, total
    start, end = int(found[1]), int(found[2])
    if not start <= end < total:
        raise RefusalError(400, f"Content-Range {text!r} is no part of a blob")
    if length is not None and length != str(end - start + 1):
        raise RefusalError(400, f"Content-Range {text!r} does not fit Content-Length {length}")
    return start, end - start + 1, total


def _incomplete(arrived: int) -> Response:
    return Response(status_code=308, headers={"Range": f"bytes=0-{arrived - 1}"} if arrived else {})
