"""Posts to a server with the standard library alone."""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import edgeml
from edgeml.errors import ServerError, UsageError
from edgeml.telemetry.proxies import open_route
from edgeml.telemetry.sender import Reply

_TIMEOUT_S: Final = 30.0
"""Until something comes."""
_WHOLE_S: Final = 60.0
"""Until all has come: rings run over while nobody reads them."""
_IDLE_S: Final = 2.0
"""A connection that was not used for longer may be closed at its other end."""
_ANSWER_LIMIT_BYTES: Final = 64 * 1024


class Poster:
    """One server, as one device; a connection lives until :meth:`close`. For one thread."""

    def __init__(
        self, server_url: str, token: str, ca_file: Path | None = None, *, whole_s: float = _WHOLE_S
    ) -> None:
        """Open no connection yet.

        Args:
            server_url: ``https://HOST`` or ``http://HOST:PORT``.
            token: of the device.
            ca_file: authorities that sign the server's certificate.
            whole_s: how long one request may take, to the end of its answer.

        Raises:
            UsageError: no URL of a server, a file of authorities that cannot be read, or a proxy in the
                environment that cannot be used.
        """
        parts = urlsplit(server_url)
        try:
            port = parts.port
        except ValueError:
            port = -1
        if parts.scheme not in {"http", "https"} or not parts.hostname or port == -1:
            raise UsageError(
                f"{server_url!r} is not a server's address: write https://HOST or http://HOST:PORT"
            )
        context: ssl.SSLContext | None = None
        if parts.scheme == "https":
            try:
                context = ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))
            except OSError as error:
                raise UsageError(f"{ca_file}: no certificates that can be read: {error}") from error
        route = open_route(parts, _TIMEOUT_S, context)
        through = f" through the proxy {route.proxy}" if route.proxy else ""
        self._name = f"{server_url.rstrip('/')}{through}"
        self._base = route.prefix + parts.path.rstrip("/")
        self._headers = dict(route.headers) | {
            "Authorization": f"Bearer {token}",
            "User-Agent": f"edgeml-telemetry/{edgeml.__version__}",
            "Accept-Encoding": "identity",
        }
        self._used_at, self._whole_s = 0.0, whole_s
        self._socket: socket.socket | None = None
        self._connection = route.connection

    def __call__(self, path: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        """Give the answer, whatever its status.

        Raises:
            ServerError: there was none.
        """
        if time.monotonic() - self._used_at > _IDLE_S:
            self.close()
        try:
            with self._in_time():
                self._connection.request("POST", self._base + path, body, self._headers | dict(headers))
                self._socket = self._connection.sock
                with self._connection.getresponse() as response:
                    content = self._limited(response)
                    self._used_at = time.monotonic()
                    after = response.getheader("Retry-After") or ""
                    return Reply(response.status, content, float(after) if after.isdecimal() else None)
        except (OSError, http.client.HTTPException, ValueError) as error:
            self.close()
            raise ServerError(f"{self._name} cannot be reached: {error or type(error).__name__}") from error

    def _limited(self, response: http.client.HTTPResponse) -> bytes:
        """Read what comes, piece by piece: with a chunk of -1 bytes one call would read for ever."""
        content = bytearray()
        while piece := response.read1(_ANSWER_LIMIT_BYTES):
            content += piece
            if len(content) > _ANSWER_LIMIT_BYTES:
                raise http.client.HTTPException(f"an answer of more than {_ANSWER_LIMIT_BYTES} bytes")
        if response.length:
            raise http.client.HTTPException(f"cut off, {response.length} bytes before the end")
        return bytes(content)

    @contextmanager
    def _in_time(self) -> Iterator[None]:
        """End a request that takes too long, however busily something comes."""
        self._socket = None
        timer = threading.Timer(self._whole_s, self._hang_up)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _hang_up(self) -> None:
        connected = self._socket or self._connection.sock
        if connected is not None:
            with suppress(OSError):
                connected.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connection; the next call opens another."""
        self._connection.close()
