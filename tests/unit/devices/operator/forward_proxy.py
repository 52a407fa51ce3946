"""A real proxy on loopback: it forwards requests with whole addresses, and tunnels after ``CONNECT``."""

from __future__ import annotations

import select
import socket
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self
from urllib.parse import urlsplit


@dataclass
class ForwardProxy:
    """Remembers the first line of each request; with ``login`` it wants that as Basic authorization."""

    login: str = ""
    asked: list[str] = field(default_factory=list)

    def __enter__(self) -> Self:
        owner = self

        class Handler(_Handler):
            proxy = owner

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._server.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: ForwardProxy

    def log_message(self, *_: object) -> None:
        pass

    def do_CONNECT(self) -> None:
        if not self._may():
            return
        host, _, port = self.path.rpartition(":")
        with socket.create_connection((host, int(port)), 5) as there:
            self.send_response_only(200)
            self.end_headers()
            with suppress(OSError):
                _pass_on(self.connection, there)
        self.close_connection = True

    def do_POST(self) -> None:
        if not self._may():
            return
        parts = urlsplit(self.path)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        kept = {name: value for name, value in self.headers.items() if not name.lower().startswith("proxy-")}
        there = HTTPConnection(parts.hostname or "", parts.port, timeout=5)
        there.request("POST", parts.path, body, kept)
        answer = there.getresponse()
        content = answer.read()
        there.close()
        self._answer(answer.status, content)

    def _may(self) -> bool:
        self.proxy.asked.append(f"{self.command} {self.path}")
        if not self.proxy.login or self.headers["Proxy-Authorization"] == f"Basic {self.proxy.login}":
            return True
        self._answer(407, b"")
        return False

    def _answer(self, status: int, content: bytes) -> None:
        self.send_response_only(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def _pass_on(one: socket.socket, other: socket.socket) -> None:
    while True:
        ready, _, _ = select.select([one, other], [], [], 5)
        for source in ready:
            data = source.recv(65536)
            if not data:
                return
            (other if source is one else one).sendall(data)
