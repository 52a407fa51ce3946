"""A TCP proxy that does what networks do: cuts, throttles, delays, answers in another's place."""

from __future__ import annotations

import socket
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

_CHUNK_BYTES: Final = 8 * 1024


@dataclass(frozen=True)
class Fault:
    """What happens to one connection."""

    cut_after_bytes: int | None = None
    """Of the answers: then the connection ends."""
    bytes_per_s: int | None = None
    delay_s: float = 0.0
    """Before each piece of an answer."""
    answer: bytes | None = None
    """Sent instead of the server's; the server never hears of it."""
    reorder: bool = False
    """The second and the third piece of the answers change places: what arrives is as long, and wrong."""
    after_bytes: int = 0
    """The fault begins behind so many bytes of the answers."""


def http(status: str, body: bytes = b"", **headers: str) -> bytes:
    """Give an HTTP answer."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


class FaultProxy:
    """Stands before a server; connections that nothing is planned for pass as they are."""

    def __init__(self, server_url: str) -> None:
        parts = urlsplit(server_url)
        self._server = (parts.hostname or "", parts.port or 80)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.plan: deque[Fault] = deque()
        """One for each next connection."""
        self.always: Fault | None = None
        """For connections that nothing is planned for."""
        self.passed_bytes = 0
        """Of answers, headers included."""
        self.connections = 0
        self._open: set[socket.socket] = set()
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def expect(self, faults: Iterable[Fault]) -> None:
        self.plan.extend(faults)

    def drop_all(self) -> None:
        """End every connection that is open."""
        for one in list(self._open):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listener.close()
        self.drop_all()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
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
                threading.Thread(target=_pump_requests, args=(client, server), daemon=True).start()
                self._pump_answers(server, client, fault)
                self._open.discard(server)
        self._open.discard(client)

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
                for piece in [chunk, *held]:
                    self._send(client, piece, fault.bytes_per_s if is_on else None)
                if held:
                    held, fault = [], Fault()
                if fault.cut_after_bytes is not None and done >= fault.after_bytes + fault.cut_after_bytes:
                    break
            for piece in held:
                self._send(client, piece, None)
            # what was sent is to arrive: an end, not a reset
            client.shutdown(socket.SHUT_WR)

    def _send(self, client: socket.socket, piece: bytes, bytes_per_s: int | None) -> None:
        step = len(piece) if bytes_per_s is None else max(1, bytes_per_s // 20)
        for start in range(0, len(piece), step):
            client.sendall(piece[start : start + step])
            self.passed_bytes += len(piece[start : start + step])
            if bytes_per_s is not None:
                time.sleep(step / bytes_per_s)


def _pump_requests(client: socket.socket, server: socket.socket) -> None:
    with suppress(OSError):
        while chunk := client.recv(_CHUNK_BYTES):
            server.sendall(chunk)
        server.shutdown(socket.SHUT_WR)


@contextmanager
def proxying(server_url: str) -> Iterator[FaultProxy]:
    """Give a proxy before a server."""
    proxy = FaultProxy(server_url)
    try:
        yield proxy
    finally:
        proxy.close()
