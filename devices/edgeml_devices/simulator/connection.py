"""HTTP/1.1 over one kept connection, on asyncio's streams: ten thousand of them wait in some hundred MB."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from edgeml.errors import UsageError

_BUFFER_BYTES: Final = 2**14
_READ_S: Final = 60.0
"""Without an answer for so long, a connection is given up; a thousand others may come first."""
_DEVICES_PER_ADDRESS: Final = 20_000
"""Connections from one address to one server: the system has some 28,000 ports for them."""
_HIGHEST_ADDRESS: Final = 250


class LostError(OSError):
    """No answer: the connection broke, or the scenario has it lost."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes = b""

    @property
    def retry_after_s(self) -> float | None:
        text = self.headers.get("retry-after", "")
        return float(text) if text.isdecimal() else None


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the server listens."""

    host: str
    port: int
    prefix: str
    tls: ssl.SSLContext | None

    def local_address(self, number: int) -> str | None:
        """Give the address that a device comes from; ``None``: the system's choice."""
        if not self.host.startswith("127.") and self.host != "localhost":
            return None
        # the first ones come from where everything else on this machine does
        place = number // _DEVICES_PER_ADDRESS
        return None if place == 0 else f"127.0.0.{2 + place % _HIGHEST_ADDRESS}"


def endpoint_of(server_url: str, ca_file: Path | None = None) -> Endpoint:
    """Take a server's address apart.

    Raises:
        UsageError: it is none, or the authorities cannot be read.
    """
    url = urlsplit(server_url)
    if url.scheme not in {"http", "https"} or not url.hostname:
        raise UsageError(f"{server_url!r} is not a server's address: write https://HOST or http://HOST:PORT")
    tls: ssl.SSLContext | None = None
    if url.scheme == "https":
        try:
            tls = ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))
        except OSError as error:
            raise UsageError(f"{ca_file}: no certificates that can be read: {error}") from error
    return Endpoint(url.hostname, url.port or (443 if tls else 80), url.path.rstrip("/"), tls)


class Connection:
    """One connection of one device; opened when it is needed, and again after it broke."""

    __slots__ = ("_endpoint", "_local", "_reader", "_token", "_writer")

    def __init__(self, endpoint: Endpoint, token: str, number: int = 0) -> None:
        self._endpoint, self._token = endpoint, token
        self._local = endpoint.local_address(number)
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def call(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: Mapping[str, str] = {},
        *,
        wait_s: float = 0.0,
    ) -> Reply:
        """Make one request.

        Args:
            method: GET or POST.
            path: with the query.
            body: to be posted.
            headers: further ones.
            wait_s: how long the server may wait before it answers.

        Raises:
            LostError: no whole answer came.
        """
        content = bytearray()
        reply = await self._exchange(method, path, body, headers, content.extend, wait_s)
        return Reply(reply.status, reply.headers, bytes(content))

    async def download(
        self,
        path: str,
        start: int,
        take: Callable[[bytes], None],
        *,
        bytes_per_s: float | None = None,
        stop_after: int | None = None,
    ) -> Reply:
        """Get a file from byte ``start`` on; every piece goes to ``take``.

        Args:
            path: of the file.
            start: of the first byte that is wanted.
            take: what to do with the bytes.
            bytes_per_s: not faster than that.
            stop_after: bytes after which the connection breaks.

        Raises:
            LostError: it broke off; what was taken is good.
        """
        headers = {"Range": f"bytes={start}-"} if start else {}
        return await self._exchange("GET", path, b"", headers, take, 0.0, bytes_per_s, stop_after)

    async def send_and_leave(self, path: str, body: bytes, headers: Mapping[str, str]) -> None:
        """Post, and hang up before an answer: nobody knows whether it arrived.

        Raises:
            LostError: it could not be sent.
        """
        try:
            async with asyncio.timeout(_READ_S):
                await self._send("POST", path, body, headers)
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            raise LostError(str(error)) from error
        finally:
            self.close()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._writer = self._reader = None

    async def _exchange(
        self,
        method: str,
        path: str,
        body: bytes,
        headers: Mapping[str, str],
        take: Callable[[bytes], object],
        wait_s: float,
        bytes_per_s: float | None = None,
        stop_after: int | None = None,
    ) -> Reply:
        whole = False
        try:
            async with asyncio.timeout(wait_s + _READ_S) as patience:
                await self._send(method, path, body, headers)
                reply = await self._head()
                await self._body(reply, take, bytes_per_s, stop_after, patience)
            whole = reply.headers.get("connection", "") != "close"
        except LostError:
            raise
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            raise LostError(str(error) or type(error).__name__) from error
        except (ValueError, IndexError) as error:
            raise LostError("no answer of HTTP; is this an edgeml server?") from error
        else:
            return reply
        finally:
            if not whole:
                self.close()

    async def _send(self, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> None:
        if self._reader is not None and self._reader.at_eof():
            self.close()  # the server ended it while it was idle
        if self._writer is None:
            there = self._endpoint
            self._reader, self._writer = await asyncio.open_connection(
                there.host,
                there.port,
                limit=_BUFFER_BYTES,
                ssl=there.tls,
                local_addr=None if self._local is None else (self._local, 0),
            )
        there = self._endpoint
        lines = [f"{method} {there.prefix}{path} HTTP/1.1", f"Host: {there.host}"]
        lines += [f"Authorization: Bearer {self._token}", "Accept-Encoding: identity"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        if body:
            lines.append(f"Content-Length: {len(body)}")
        self._writer.write("\r\n".join((*lines, "", "")).encode() + body)
        await self._writer.drain()

    def _open_reader(self) -> asyncio.StreamReader:
        if self._reader is None:  # the device's network went meanwhile
            raise LostError("closed")
        return self._reader

    async def _head(self) -> Reply:
        head = (await self._open_reader().readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        pairs = (line.partition(":") for line in head[1:] if line)
        return Reply(int(head[0].split()[1]), {name.lower(): value.strip() for name, _, value in pairs})

    async def _body(
        self,
        reply: Reply,
        take: Callable[[bytes], object],
        bytes_per_s: float | None,
        stop_after: int | None,
        patience: asyncio.Timeout,
    ) -> None:
        reader = self._open_reader()
        left, taken = int(reply.headers.get("content-length", "0")), 0
        if "transfer-encoding" in reply.headers:
            raise LostError("an answer in chunks; is this an edgeml server?")
        while left:
            piece = await reader.read(min(left, _BUFFER_BYTES))
            if not piece:
                raise LostError(f"cut off, {left} bytes before the end")
            left -= len(piece)
            if reply.status < 300:  # noqa: PLR2004 - HTTP's: a refusal is no part of a file
                taken += len(piece)
            take(piece)
            if stop_after is not None and left and taken >= stop_after:
                raise LostError("cut off, as the scenario has it")
            if left:
                pause_s = 0.0 if bytes_per_s is None else len(piece) / bytes_per_s
                patience.reschedule(asyncio.get_running_loop().time() + pause_s + _READ_S)
                await asyncio.sleep(pause_s)
