"""HTTP/1.1 for uvicorn that does not wait forever for a request's head."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEADER_BYTES: Final = 32 * 1024


class ImpatientProtocol(HttpToolsProtocol):
    """Closes a connection whose head comes too slowly or is too long (slow loris)."""

    header_s = 10.0
    """From the connection's begin, or a request's first byte, to the end of its head."""
    note_slow: Callable[[str], None]
    """Told the address of a caller whose head came too slowly."""
    _deadline: asyncio.TimerHandle | None = None
    _head_bytes = 0
    _in_head = True

    def connection_made(
        self,
        transport: asyncio.Transport,  # type: ignore[override]
    ) -> None:
        super().connection_made(transport)
        self._start_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_head()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._in_head:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._in_head and self._head_bytes > HEADER_BYTES and not self.transport.is_closing():
            self.send_400_response("The head of this request is too long.")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._start_head()

    def on_headers_complete(self) -> None:
        self._stop_head()
        super().on_headers_complete()

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


def impatient(header_s: float, note_slow: Callable[[str], None]) -> type[ImpatientProtocol]:
    """Give a protocol that waits so long for a head: uvicorn makes one for each connection."""
    attributes = {"header_s": header_s, "note_slow": staticmethod(note_slow)}
    return type("ImpatientProtocol", (ImpatientProtocol,), attributes)
