"""Posts to a server with the standard library alone."""

from __future__ import annotations

import http.client
import ssl
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import edgeml
from edgeml.errors import ServerError, UsageError
from edgeml.telemetry.sender import Reply

_TIMEOUT_S: Final = 30.0
_IDLE_S: Final = 2.0
"""A connection that was not used for longer may be closed at its other end."""
_ANSWER_LIMIT_BYTES: Final = 64 * 1024


class Poster:
    """One server, as one device; a connection lives until :meth:`close`. For one thread."""

    def __init__(self, server_url: str, token: str, ca_file: Path | None = None) -> None:
        """Open no connection yet.

        Raises:
            UsageError: no URL of a server, or a file of authorities that cannot be read.
        """
        parts = urlsplit(server_url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise UsageError(
                f"{server_url!r} is not a server's address: write https://HOST or http://HOST:PORT"
            )
        self._url, self._base = server_url.rstrip("/"), parts.path.rstrip("/")
        self._headers = {
            "Authorization": f"Bearer {token}",
            "User-Agent": f"edgeml-telemetry/{edgeml.__version__}",
            "Accept-Encoding": "identity",
        }
        self._used_at = 0.0
        self._connection: http.client.HTTPConnection
        if parts.scheme == "https":
            try:
                context = ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))
            except OSError as error:
                raise UsageError(f"{ca_file}: no certificates that can be read: {error}") from error
            self._connection = http.client.HTTPSConnection(
                parts.hostname, parts.port, timeout=_TIMEOUT_S, context=context
            )
        else:
            self._connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=_TIMEOUT_S)

    def __call__(self, path: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        """Give the answer, whatever its status.

        Raises:
            ServerError: there was none.
        """
        if time.monotonic() - self._used_at > _IDLE_S:
            self.close()
        try:
            self._connection.request("POST", self._base + path, body, self._headers | dict(headers))
            with self._connection.getresponse() as response:
                content = response.read(_ANSWER_LIMIT_BYTES + 1)
                if len(content) > _ANSWER_LIMIT_BYTES:
                    self.close()
                self._used_at = time.monotonic()
                after = response.getheader("Retry-After") or ""
                return Reply(
                    response.status,
                    content[:_ANSWER_LIMIT_BYTES],
                    float(after) if after.isdecimal() else None,
                )
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise ServerError(f"{self._url} cannot be reached: {error or type(error).__name__}") from error

    def close(self) -> None:
        """Close the connection; the next call opens another."""
        self._connection.close()
