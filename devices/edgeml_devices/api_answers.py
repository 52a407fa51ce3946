"""What an answer of the server says, or its absence, in words for whoever asked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from urllib3.exceptions import HTTPError, MaxRetryError, SSLError

from edgeml.errors import ServerError
from edgeml_devices.http_pool import BUSY

_WHOSE: Final = "; is this the address (--server, EDGEML_SERVER) of an edgeml server?"


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class RefusedError(ServerError):
    """The server answered, and the answer is no."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status
        """The HTTP status: 404 not there, 409 a conflict with what is there …"""


def require_success(answer: Answer, server_url: str, call: str, *, is_known: bool) -> None:
    """Turn an answer that is no into an error.

    Args:
        answer: which may be an error.
        server_url: of whoever answered.
        call: method and path.
        is_known: a token was sent.

    Raises:
        RefusedError: it is.
    """
    if 200 <= answer.status < 300:  # noqa: PLR2004 - HTTP's
        return
    said = _error_message(answer.body)
    if answer.status == 401 and not is_known:  # noqa: PLR2004 - HTTP's
        said = "it wants to know who you are"
    elif said is None:
        location = answer.headers.get("Location")
        said = f"{call}: HTTP {answer.status}"
        if location is not None:
            said = f"it sends elsewhere; use that address: {location}"
        elif not call.startswith("HEAD "):  # which has no body, whoever answers
            said += " and no answer of an edgeml server"
    raise RefusedError(f"{server_url}: {said}{_next_step(answer.status, said)}", answer.status)


class _Said(dict[str, Any]):
    """What an answer says: a field that it should have, and has not, is a fault of the server's."""

    def __init__(self, fields: dict[str, Any], url: str) -> None:
        super().__init__(fields)
        self._url = url

    def __missing__(self, name: str) -> NoReturn:
        raise ServerError(f"{self._url} answered without {name!r}{_WHOSE}")


def parsed(answer: Answer, url: str) -> dict[str, Any]:
    """Give the JSON object that an answer is; to ask it for a field that it lacks raises ServerError.

    Raises:
        ServerError: it is none.
    """
    try:
        said = json.loads(answer.body)
    except (ValueError, RecursionError) as error:
        raise ServerError(f"{url} did not answer with JSON{_WHOSE}") from error
    if not isinstance(said, dict):
        raise ServerError(f"{url} answered with JSON that is no object{_WHOSE}")
    return _Said(said, url)


def unreachable(server_url: str, error: HTTPError) -> str:
    """Say why there is no answer, and what to do."""
    reason = error.reason if isinstance(error, MaxRetryError) and error.reason else error
    if isinstance(reason, SSLError):
        return (
            f"{server_url}: its certificate is not trusted: {reason}; "
            "give the authority that signed it (--ca-file, EDGEML_CA_FILE)"
        )
    return (
        f"{server_url} cannot be reached: {cause(reason)}; "
        "is the server running, and the address (--server, EDGEML_SERVER) right?"
    )


def _error_message(body: bytes) -> str | None:
    try:
        message = json.loads(body)["error"]["message"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    return str(message)


def _next_step(status: int, said: str) -> str:
    if status == 401:  # noqa: PLR2004 - HTTP's
        return "; give a token that the server knows: --token, EDGEML_TOKEN (from edgeml tokens create)"
    if status == 403 and "role" in said:  # noqa: PLR2004 - HTTP's
        return "; ask an admin for a token of a role that may (edgeml tokens create NAME --role ROLE)"
    if status in BUSY:
        return "; it is busy or restarting, try again in a minute"
    return ""


def cause(error: Exception) -> str:
    """Give an error's cause without urllib3's object names in front."""
    return str(error).rpartition("object at 0x")[2].partition(": ")[2] or str(error)
