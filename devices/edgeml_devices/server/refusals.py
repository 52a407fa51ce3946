"""How the server says no: one kind of error, one shape of answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from edgeml.errors import ServerError

_KINDS: Final = {
    400: "bad_request",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    408: "too_slow",
    409: "conflict",
    413: "too_large",
    416: "bad_range",
    429: "busy",
    500: "internal",
    503: "busy",
    507: "disk_full",
}


class RefusalError(ServerError):
    """A request that is answered with an error."""

    def __init__(
        self, status: int, message: str, *, headers: Mapping[str, str] | None = None, **extra: Any
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers = dict(headers or {})
        self.extra = extra
        """What stands beside ``error`` in the answer, for machines."""

    def answer(self) -> dict[str, Any]:
        """Give the answer's body."""
        return error_answer(self.status, str(self)) | self.extra


def error_answer(status: int, message: str) -> dict[str, Any]:
    """Give the body of an answer with a status of 400 or more."""
    return {
        "error": {
            "type": _KINDS.get(status, "error"),
            "message": message,
        }
    }


def not_found(kind: str, name: object) -> RefusalError:
    """Say that there is no such thing."""
    return RefusalError(404, f"no {kind} {name}")
