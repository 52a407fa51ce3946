"""A line to a server that counts what goes up, and breaks at a byte that a test chose."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Self
from urllib.parse import urlsplit


class CountingLine:
    """Forwards connections to ``target``; ``url`` is its own address."""

    def __init__(self, target: str) -> None:
        parts = urlsplit(target)
        self._target = (parts.hostname, parts.port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._lock = threading.Lock()
        self._break: tuple[int, Callable[[], None]] | None = None
        self.sent_bytes = 0
        """From clients to the server."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def break_after(self, sent_bytes: int, then: Callable[[], None]) -> None:
        """Let ``sent_bytes`` more bytes through, call ``then``, and drop that connection."""
        with self._lock:
            self._break = (self.sent_bytes + sent_bytes, then)

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                try:
                    server = socket.create_connection(self._target)
                except OSError:
                    client.close()
                    continue
                for source, sink, counted in ((client, server, True), (server, client, False)):
                    threading.Thread(target=self._forward, args=(source, sink, counted), daemon=True).start()

    def _forward(self, source: socket.socket, sink: socket.socket, counted: bool) -> None:
        with suppress(OSError):
            while data := source.recv(16384):
                allowed = self._allowed(len(data)) if counted else None
                sink.sendall(data if allowed is None else data[: allowed[0]])
                if allowed is not None and allowed[1] is not None:
                    allowed[1]()
                    break
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _allowed(self, size_bytes: int) -> tuple[int, Callable[[], None] | None]:
        with self._lock:
            if self._break is None or self.sent_bytes + size_bytes < self._break[0]:
                self.sent_bytes += size_bytes
                return size_bytes, None
            allowed_bytes, then = self._break[0] - self.sent_bytes, self._break[1]
            self.sent_bytes += allowed_bytes
            self._break = None
            return allowed_bytes, then
