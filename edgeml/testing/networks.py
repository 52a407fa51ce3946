"""A TCP proxy that does what networks do: cuts, slows down, delays, answers in another's place, is away.

```python
with BadNetwork("http://127.0.0.1:8000") as network:
    network.always = Fault(bytes_per_s=1000)
    client = Client(network.url)
```
"""

from __future__ import annotations

import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self
from urllib.parse import urlsplit

_CHUNK_BYTES: Final = 8 * 1024


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to one connection. *Answers* are what the server sends."""

    cut_after_bytes: int | None = None
    """Of the answers: then the connection ends."""
    bytes_per_s: int | None = None
    """Of the answers."""
    delay_s: float = 0.0
    """Before each piece of an answer."""
    answer: bytes | None = None
    """Sent instead of the server's; the server never hears of it."""
    reorder: bool = False
    """The second and the third piece of the answers change places: what arrives is as long, and wrong."""
    after_bytes: int = 0
    """The fault begins behind so many bytes of the answers."""
    upload_bytes_per_s: int | None = None
    """Of what the client sends."""


def http_answer(status: str, body: bytes = b"", **headers: str) -> bytes:
    """Give an HTTP answer for :attr:`Fault.answer`: ``http_answer("503 Busy", Retry_After="7")``."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


class BadNetwork:
    """Stands before a server; connections that nothing is planned for pass as they are."""

    def __init__(self, target: str) -> None:
        """Listen on a loopback port.

        Args:
            target: the server behind it, as ``http://HOST:PORT`` or ``HOST:PORT``.
        """
        parts = urlsplit(target if "//" in target else f"//{target}")
        self._server = (parts.hostname or "", parts.port or 80)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.url = f"{parts.scheme or 'http'}://127.0.0.1:{self.port}"
        self.plan: deque[Fault] = deque()
        """One for each next connection."""
        self.always: Fault | None = None
        """For connections that nothing is planned for."""
        self.sent_bytes = 0
        """From clients to the server."""
        self.passed_bytes = 0
        """Of answers, headers included."""
        self.connections = 0
        self._is_away = False
        self._break: tuple[int, Callable[[], object]] | None = None
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def expect(self, faults: Iterable[Fault]) -> None:
        """Plan what happens to the next connections."""
        self.plan.extend(faults)

    def break_after(self, sent_bytes: int, then: Callable[[], object]) -> None:
        """Let clients send ``sent_bytes`` more, call ``then``, and end the connection that sent the last."""
        with self._lock:
            self._break = (self.sent_bytes + sent_bytes, then)

    def cut(self) -> None:
        """End every connection that is open; new ones are served."""
        for one in list(self._open):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def go_away(self) -> None:
        """End every connection, and each new one at once, until :meth:`come_back`."""
        self._is_away = True
        self.cut()

    def come_back(self) -> None:
        """Serve new connections again."""
        self._is_away = False

    def close(self) -> None:
        """Stop listening and end every connection. Idempotent."""
        with suppress(OSError):  # wakes who waits in accept, which would hold the port open
            self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()
        self.cut()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            if self._is_away:
                client.close()
                continue
            fault = self.plan.popleft() if self.plan else self.always or Fault()
            threading.Thread(target=self._serve, args=(client, fault), daemon=True).start()

    def _serve(self, client: socket.socket, fault: Fault) -> None:
        self._open.add(client)
        with client:
            if fault.answer is not None:
                with suppress(OSError):
                    client.recv(_CHUNK_BYTES)
                    client.sendall(fault.answer)
                    client.shutdown(socket.SHUT_WR)
                    client.recv(1)
                self._open.discard(client)
                return
            with suppress(OSError), socket.create_connection(self._server) as server:
                self._open.add(server)
                threading.Thread(
                    target=self._pump_requests, args=(client, server, fault), daemon=True
                ).start()
                self._pump_answers(server, client, fault)
                self._open.discard(server)
        self._open.discard(client)

    def _pump_requests(self, client: socket.socket, server: socket.socket, fault: Fault) -> None:
        with suppress(OSError):
            while chunk := client.recv(_CHUNK_BYTES):
                allowed_bytes, then = self._allowed(len(chunk))
                for piece in _pieces(chunk[:allowed_bytes], fault.upload_bytes_per_s):
                    server.sendall(piece)
                if then is not None:
                    then()
                    client.shutdown(socket.SHUT_RDWR)
                    server.shutdown(socket.SHUT_RDWR)
                    return
        with suppress(OSError):
            server.shutdown(socket.SHUT_WR)

    def _allowed(self, size_bytes: int) -> tuple[int, Callable[[], object] | None]:
        """Count what a client sends; gives how much of it passes, and what happens then."""
        with self._lock:
            if self._break is None or self.sent_bytes + size_bytes < self._break[0]:
                self.sent_bytes += size_bytes
                return size_bytes, None
            allowed_bytes, then = self._break[0] - self.sent_bytes, self._break[1]
            self.sent_bytes += allowed_bytes
            self._break = None
            return allowed_bytes, then

    def _pump_answers(self, server: socket.socket, client: socket.socket, fault: Fault) -> None:
        done = 0
        held: list[bytes] = []
        with suppress(OSError):
            while chunk := server.recv(_CHUNK_BYTES):
                is_on = done >= fault.after_bytes
                if is_on and fault.cut_after_bytes is not None:
                    chunk = chunk[: fault.after_bytes + fault.cut_after_bytes - done]
                if is_on and fault.delay_s:
                    time.sleep(fault.delay_s)
                if is_on and fault.reorder and len(chunk) == _CHUNK_BYTES and len(held) < 1 and done:
                    held.append(chunk)
                    done += len(chunk)
                    continue
                done += len(chunk)
                for part in [chunk, *held]:
                    self._send(client, part, fault.bytes_per_s if is_on else None)
                if held:
                    held, fault = [], Fault()
                if fault.cut_after_bytes is not None and done >= fault.after_bytes + fault.cut_after_bytes:
                    break
            for part in held:
                self._send(client, part, None)
            # what was sent is to arrive: an end, not a reset
            client.shutdown(socket.SHUT_WR)

    def _send(self, client: socket.socket, part: bytes, bytes_per_s: int | None) -> None:
        for piece in _pieces(part, bytes_per_s):
            self.passed_bytes += len(piece)  # before, so that who has read them finds them counted
            client.sendall(piece)


def _pieces(data: bytes, bytes_per_s: int | None) -> Iterable[bytes]:
    """Give data at a rate."""
    step = max(1, len(data)) if bytes_per_s is None else max(1, bytes_per_s // 20)
    for start in range(0, len(data), step):
        yield data[start : start + step]
        if bytes_per_s is not None:
            time.sleep(step / bytes_per_s)
