"""What every request must keep to, before any route sees it: sizes, speed, characters."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from starlette.exceptions import HTTPException
from starlette.types import Message, Receive, Scope

from edgeml_devices.server.settings import Limits
from edgeml_devices.server.telemetry.wire import MOST_BODY_BYTES

_METADATA: Final = "/v1/repository/"
_BLOBS: Final = "/v1/blobs/"
REPORTS: Final = "/v1/reports"
_SLACK: Final = 64 * 1024
"""Metadata inside another document is somewhat longer."""


def check_scope(scope: Scope) -> None:
    """Refuse an address that no database could look up.

    Raises:
        HTTPException: 400.
    """
    if "\0" in scope["path"] or b"%00" in scope["query_string"]:
        raise HTTPException(400, "the address holds a NUL character")


def guarded(receive: Receive, scope: Scope, limits: Limits) -> Receive:
    """Give a ``receive`` that ends a body which is too long or comes too slowly.

    It raises HTTPException, which FastAPI passes on from wherever a body is read: 408, 413.
    """
    longest = _longest(scope["path"], limits)
    begun = time.monotonic()
    arrived = 0

    async def receive_guarded() -> Message:
        nonlocal arrived
        try:
            async with asyncio.timeout(limits.body_pause_s):
                message = await receive()
        except TimeoutError:
            raise HTTPException(408, f"no byte of the body came for {limits.body_pause_s:g} s") from None
        if message["type"] == "http.request":
            arrived += len(message.get("body", b""))
            if longest is not None and arrived > longest:
                raise HTTPException(413, f"a body of this call may have {longest} bytes")
            allowed_s = limits.body_grace_s + arrived / limits.body_bytes_per_s
            if message.get("more_body") and time.monotonic() - begun > allowed_s:
                raise HTTPException(
                    408, f"the body came at less than {limits.body_bytes_per_s} bytes a second"
                )
        return message

    return receive_guarded


def _longest(path: str, limits: Limits) -> int | None:
    """Give the longest body of a call; ``None``: the call counts by itself."""
    if path.startswith(_BLOBS):
        return None
    if path == REPORTS:
        return MOST_BODY_BYTES
    return limits.metadata_bytes + _SLACK if path.startswith(_METADATA) else limits.document_bytes
