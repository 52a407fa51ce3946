"""HTTP/1.1 for uvicorn: does not wait forever for a request's head, and answers short requests at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

HEADER_BYTES: Final = 32 * 1024
_SHORT_BYTES: Final = 256 * 1024
_REST_S: Final = 0.05
Headers = Sequence[tuple[bytes, bytes]]
Answer = Callable[[bytes | None], None]
"""Takes the JSON of a 200, or ``None``: nothing was done, the application answers."""


class Take(Protocol):
    """What answers short requests."""

    def __call__(self, headers: Headers, body: bytes, answer: Answer) -> None:
        """Take a request and give its answer, now or later, once. It does not raise."""


@dataclass(frozen=True, slots=True)
class ShortRoute:
    """A call that passes the application by where its request comes at once.

    A task, a queue and two messages for each request cost more than all that is done with a short one.
    """

    path: bytes
    take: Take


class ImpatientProtocol(HttpToolsProtocol):
    """Closes a connection whose head comes too slowly or is too long (slow loris)."""

    header_s = 10.0
    """From the connection's begin, or a request's first byte, to the end of its head."""
    note_slow: Callable[[str], None]
    """Told the address of a caller whose head came too slowly."""
    short: ShortRoute
    _deadline: asyncio.TimerHandle | None = None
    _head_bytes = 0
    _in_head = True
    _short_body: bytearray | None = None
    """Of a request that may turn out to be a short one."""
    _rest: asyncio.TimerHandle | None = None

    def connection_made(
        self,
        transport: asyncio.Transport,  # type: ignore[override]
    ) -> None:
        super().connection_made(transport)
        self._start_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_head()
        self._stop_rest()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._in_head:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._short_body is not None:
            self._await_rest()
        if self._in_head and self._head_bytes > HEADER_BYTES and not self.transport.is_closing():
            self.send_400_response("The head of this request is too long.")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._start_head()

    def on_headers_complete(self) -> None:
        self._stop_head()
        if self.url == self.short.path and self._is_plain_post():
            self._short_body = bytearray()
        else:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if self._short_body is None:
            super().on_body(body)
        else:
            self._short_body += body

    def on_message_complete(self) -> None:
        if self._short_body is None:
            super().on_message_complete()
            return
        body, self._short_body = bytes(self._short_body), None
        self._stop_rest()
        path = self.short.path
        self.scope |= {"method": "POST", "path": path.decode(), "raw_path": path, "query_string": b""}
        exchange = _Exchange(self, self.scope, body)
        self.cycle = exchange  # type: ignore[assignment]
        self.short.take(self.headers, body, exchange.answer)

    # --- short requests

    def _is_plain_post(self) -> bool:
        return (
            self.parser.get_method() == b"POST"
            and self.parser.get_http_version() == "1.1"
            and self.parser.should_keep_alive()
            and not self.parser.should_upgrade()
            and not self.expect_100_continue
            and (self.cycle is None or self.cycle.response_complete)
        )

    def _await_rest(self) -> None:
        """Many clients send a body right after the head; what takes longer goes the ordinary way."""
        if self._rest is None:
            self._rest = self.loop.call_later(_REST_S, self._go_ordinary_way)
        elif len(self._short_body or b"") > _SHORT_BYTES:
            self._go_ordinary_way()

    def _go_ordinary_way(self) -> None:
        """Begin a cycle, which watches a body's length and speed."""
        self._stop_rest()
        body, self._short_body = self._short_body, None
        if not self.transport.is_closing():
            super().on_headers_complete()
            super().on_body(bytes(body or b""))

    def _stop_rest(self) -> None:
        if self._rest is not None:
            self._rest.cancel()
            self._rest = None

    def pass_on(self, scope: Any, body: bytes, *, keep_alive: bool) -> None:
        """Let the application answer a request that came whole."""
        cycle = RequestResponseCycle(
            scope=scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=self.access_log,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=False,
            keep_alive=keep_alive,
            on_response=self.on_response_complete,
        )
        cycle.body += body
        cycle.more_body = False
        cycle.message_event.set()
        self.cycle = cycle
        self._start_asgi_task(cycle, self.app)

    # --- heads

    def _start_head(self) -> None:
        if self._deadline is None:
            self._in_head, self._head_bytes = True, 0
            self._deadline = self.loop.call_later(self.header_s, self._end_slow)

    def _end_slow(self) -> None:
        # one that sent nothing is idle, not slow
        if self._head_bytes and not self.transport.is_closing():
            self.note_slow(self.client[0] if self.client else "unknown")
        self.timeout_keep_alive_handler()

    def _stop_head(self) -> None:
        self._in_head = False
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class _Exchange:
    """A short request that is being answered: to uvicorn, a cycle like any other."""

    __slots__ = (
        "_body",
        "_protocol",
        "_scope",
        "disconnected",
        "keep_alive",
        "message_event",
        "response_complete",
    )

    def __init__(self, protocol: ImpatientProtocol, scope: Any, body: bytes) -> None:
        self._protocol = protocol
        self._scope = scope
        self._body = body
        self.keep_alive = True
        self.response_complete = self.disconnected = False
        self.message_event = _NOBODY_WAITS

    def answer(self, content: bytes | None) -> None:
        protocol = self._protocol
        if self.disconnected or protocol.transport.is_closing():
            self.response_complete = True
        elif content is None:
            protocol.pass_on(self._scope, self._body, keep_alive=self.keep_alive)
        else:
            self.response_complete = True
            protocol.transport.write(self._head(len(content)) + content)
            if not self.keep_alive:
                protocol.transport.close()
            protocol.on_response_complete()

    def _head(self, length: int) -> bytes:
        parts = [STATUS_LINE[200]]
        for name, value in self._protocol.server_state.default_headers:
            parts += (name, b": ", value, b"\r\n")
        if not self.keep_alive:
            parts.append(b"connection: close\r\n")
        parts.append(b"content-type: application/json\r\ncontent-length: %d\r\n\r\n" % length)
        return b"".join(parts)


_NOBODY_WAITS: Final = asyncio.Event()


def impatient(
    header_s: float, note_slow: Callable[[str], None], short: ShortRoute
) -> type[ImpatientProtocol]:
    """Give a protocol that waits so long for a head: uvicorn makes one for each connection."""
    attributes = {"header_s": header_s, "note_slow": staticmethod(note_slow), "short": short}
    return type("ImpatientProtocol", (ImpatientProtocol,), attributes)
