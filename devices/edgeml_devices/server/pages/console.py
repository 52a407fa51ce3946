"""What all of the console's routes share: who is signed in, and errors as pages instead of JSON."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Annotated, Any, Final
from urllib.parse import quote

from fastapi import Depends, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from edgeml.errors import UsageError
from edgeml_devices.server.auth import Actor
from edgeml_devices.server.pages.attempts import Attempts
from edgeml_devices.server.pages.rendering import HEADERS, page
from edgeml_devices.server.pages.session import Sessions, session_key, signed_in
from edgeml_devices.server.refusals import RefusalError
from edgeml_devices.server.services import ServicesOf

SIGN_IN: Final = "/console/sign-in"
_TITLES: Final = {
    400: "That cannot be read",
    401: "Not signed in",
    403: "Refused",
    404: "Not found",
    413: "Too large",
    429: "Too many attempts",
}


@dataclass(frozen=True, slots=True)
class Console:
    """What one server process holds for the console."""

    sessions: Sessions
    attempts: Attempts = field(default_factory=Attempts)


def get_console(request: Request, services: ServicesOf) -> Console:
    """Give the app's console; made when it is first asked for."""
    state = request.app.state
    if not hasattr(state, "console"):
        state.console = Console(Sessions(session_key(services.settings.keys)))
    console: Console = state.console
    return console


ConsoleOf = Annotated[Console, Depends(get_console)]


class NotSignedInError(Exception):
    """The page needs somebody who is signed in."""


async def require_viewer(request: Request, console: ConsoleOf, services: ServicesOf) -> Actor:
    """Let those through who are signed in; whoever may sign in may see all pages."""
    actor = await signed_in(request, console.sessions, services.database)
    if actor is None:
        raise NotSignedInError
    return actor


class Page(APIRoute):
    """A route whose errors are pages, and whose answers all have the console's headers."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Wrap what FastAPI makes."""
        handle = super().get_route_handler()

        async def handle_page(request: Request) -> Response:
            try:
                response = await handle(request)
            except NotSignedInError:
                response = RedirectResponse(_sign_in_address(request), 303)
            except RefusalError as error:
                response = error_page(error.status, str(error), error.headers)
            except RequestValidationError as error:
                response = error_page(400, _first_fault(error))
            except UsageError as error:
                response = error_page(400, str(error))
            except HTTPException as error:  # a body that is too long or too slow
                response = error_page(error.status_code, str(error.detail))
            for name, value in HEADERS.items():
                response.headers[name] = value
            return response

        return handle_page


def error_page(status: int, message: str, headers: dict[str, str] | None = None) -> Response:
    """Render an error; it says nothing that needs somebody to be signed in."""
    title = _TITLES.get(status, "That did not work")
    response = page("error.html", status, now=time.time(), actor=None, title=title, message=message)
    response.headers.update(headers or {})
    return response


def _sign_in_address(request: Request) -> str:
    path = request.url.path
    wanted = f"{path}?{request.url.query}" if request.url.query else path
    return SIGN_IN if path == "/console" else f"{SIGN_IN}?next={quote(wanted, safe='')}"


def _first_fault(error: RequestValidationError) -> str:
    first = error.errors()[0]
    return f"{first['loc'][-1]}: {first['msg']}"
