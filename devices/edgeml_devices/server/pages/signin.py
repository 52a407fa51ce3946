"""Signing in with a token, and out: the only requests of the console that change something."""

from __future__ import annotations

import re
import time
from typing import Annotated, Final
from urllib.parse import parse_qs

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse

from edgeml_devices.server import audit
from edgeml_devices.server.auth import Actor, caller_address, find_actor, hash_token, refused
from edgeml_devices.server.pages.console import SIGN_IN, ConsoleOf, Page, error_page
from edgeml_devices.server.pages.origin import is_own
from edgeml_devices.server.pages.rendering import page
from edgeml_devices.server.pages.session import drop_cookie, set_cookie, signed_in
from edgeml_devices.server.refusals import RefusalError
from edgeml_devices.server.services import Services, ServicesOf

router = APIRouter(route_class=Page)
Next = Annotated[str, Query(alias="next")]
_FORM_BYTES: Final = 8192
_OWN_PAGE: Final = re.compile(r"/console(/[A-Za-z0-9._~%-]+)*/?(\?[A-Za-z0-9._~%&=+,()!/:@ -]*)?")
"""Where a sign-in may lead: nowhere but to a page of the console."""


@router.get(SIGN_IN)
async def show_sign_in(
    request: Request, console: ConsoleOf, services: ServicesOf, wanted: Next = ""
) -> Response:
    """Show the form, or go on where somebody is signed in."""
    if await signed_in(request, console.sessions, services.database) is not None:
        return RedirectResponse(own_page(wanted), 303)
    return _form(wanted)


@router.post(SIGN_IN)
async def sign_in(request: Request, console: ConsoleOf, services: ServicesOf) -> Response:
    """Take a token of a viewer or above, and answer with a cookie."""
    _require_own(request)
    address = caller_address(request)
    wait_s = console.attempts.begin(address, time.monotonic())
    if wait_s is not None:
        error = await refused(services, request, None, "too many attempts to sign in")
        return error_page(429, f"{error}; try again in {wait_s:.0f} s", {"Retry-After": f"{wait_s:.0f}"})
    form = await _read_form(request)
    token, wanted = form.get("token", "").strip(), form.get("next", "")
    actor = await find_actor(services, token) if token else None
    if actor is None or not actor.may("viewer"):
        return await _refuse(services, request, wanted, actor)
    console.attempts.succeeded(address)
    async with services.database.writing() as transaction:
        await audit.record(transaction, actor, "console.sign_in", actor.name, {"address": address})
    response = RedirectResponse(own_page(wanted), 303)
    set_cookie(request, response, console.sessions.make(actor.id, hash_token(token).hex(), time.time()))
    return response


@router.post("/console/sign-out")
async def sign_out(request: Request) -> Response:
    """Have the browser forget."""
    _require_own(request)
    response = RedirectResponse(SIGN_IN, 303)
    drop_cookie(request, response)
    return response


def own_page(wanted: str) -> str:
    """Give the page to go to; the overview where another server, or no page, was named."""
    return wanted if _OWN_PAGE.fullmatch(wanted) and not wanted.startswith(SIGN_IN) else "/console"


async def _refuse(services: Services, request: Request, wanted: str, actor: Actor | None) -> Response:
    if actor is None:
        error = await refused(services, request, None, "sign-in with a token that is unknown, or was revoked")
        return _form(wanted, "This token is unknown, or it was revoked.", error.status)
    error = await refused(services, request, actor, "sign-in with a device's token")
    return _form(wanted, "Devices cannot sign in. Use a token that an admin made for you.", error.status)


def _form(wanted: str, fault: str = "", status: int = 200) -> Response:
    return page("signin.html", status, now=time.time(), actor=None, wanted=own_page(wanted), fault=fault)


def _require_own(request: Request) -> None:
    if not is_own(request):
        raise RefusalError(403, "this form was sent from another site; open the console's own page")


async def _read_form(request: Request) -> dict[str, str]:
    """Read a form of two short fields."""
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > _FORM_BYTES:
            raise RefusalError(413, f"a sign-in has {_FORM_BYTES} bytes at most")
    try:
        fields = parse_qs(body.decode("utf-8"), max_num_fields=8)
    except ValueError as error:
        raise RefusalError(400, "the form cannot be read") from error
    return {name: values[0] for name, values in fields.items()}
