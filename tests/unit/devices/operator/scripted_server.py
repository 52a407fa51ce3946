"""A real HTTP server on loopback that holds blobs as the protocol says, and fails as a test tells it to."""

from __future__ import annotations

import json
import re
import ssl
import threading
from collections import deque
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self


@dataclass
class Request:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class ScriptedServer:
    """Gives ``answers`` in turn; without any it keeps blobs, and cuts transfers after ``cuts`` bytes."""

    answers: deque[tuple[int, dict[str, str], bytes]] = field(default_factory=deque)
    blobs: dict[str, bytes] = field(default_factory=dict)
    parts: dict[str, bytes] = field(default_factory=dict)
    cuts: deque[int] = field(default_factory=deque)
    requests: list[Request] = field(default_factory=list)
    received_bytes: int = 0
    sent_bytes: int = 0
    tls: ssl.SSLContext | None = None

    def __enter__(self) -> Self:
        owner = self

        class Handler(_Handler):
            script = owner

        self._server = _QuietServer(("127.0.0.1", 0), Handler)
        if self.tls is not None:
            self._server.socket = self.tls.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def url(self) -> str:
        scheme = "http" if self.tls is None else "https"
        return f"{scheme}://127.0.0.1:{self._server.server_address[1]}"

    def answer(self, status: int, body: Any = None, **headers: str) -> None:
        content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        self.answers.append(
            (status, {name.replace("_", "-"): value for name, value in headers.items()}, content)
        )


class _QuietServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Say nothing of a client that has gone: tests have them go."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    script: ScriptedServer

    def log_message(self, *_: object) -> None:
        pass

    def do_PUT(self) -> None:
        if self.path.startswith("/v1/blobs/") and not self.script.answers:
            self._take_blob()
        else:
            self._answer_next()

    def do_GET(self) -> None:
        if self.path.startswith("/v1/blobs/") and not self.script.answers:
            self._give_blob()
        else:
            self._answer_next()

    def do_HEAD(self) -> None:
        self._answer_next()

    def do_POST(self) -> None:
        self._answer_next()

    def do_PATCH(self) -> None:
        self._answer_next()

    def do_DELETE(self) -> None:
        self._answer_next()

    def _note(self, body: bytes = b"") -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.script.requests.append(Request(self.command, self.path, headers, body))

    def _answer_next(self) -> None:
        self._note(self.rfile.read(int(self.headers.get("Content-Length", 0))))
        status, headers, body = self.script.answers.popleft()
        if status == 0:  # the connection is lost before an answer
            self.close_connection = True
            return
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _take_blob(self) -> None:
        self._note()
        found = re.fullmatch(r"bytes (?:(\d+)-(\d+)|\*)/(\d+)", self.headers["Content-Range"])
        total, part = int(found[3]), self.script.parts.get(self.path, b"")
        if found[1] is not None:
            wanted = int(found[2]) - int(found[1]) + 1
            limit = self.script.cuts.popleft() if self.script.cuts else wanted
            body = self.rfile.read(min(wanted, limit))
            assert int(found[1]) == len(part)
            part += body
            self.script.received_bytes += len(body)
            self.script.parts[self.path] = part
            if limit < wanted:
                self.close_connection = True
                return
        if len(part) == total:
            self.script.blobs[self.path] = part
            self._end(201)
        else:
            self._end(308, {"Range": f"bytes=0-{len(part) - 1}"} if part else {})

    def _give_blob(self) -> None:
        self._note()
        blob = self.script.blobs[self.path]
        start = int(re.match(r"bytes=(\d+)-", self.headers["Range"])[1])
        body = blob[start:]
        self.send_response(206)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Range", f"bytes {start}-{len(blob) - 1}/{len(blob)}")
        self.end_headers()
        limit = self.script.cuts.popleft() if self.script.cuts else len(body)
        self.wfile.write(body[:limit])
        self.script.sent_bytes += min(limit, len(body))
        if limit < len(body):
            self.close_connection = True

    def _end(self, status: int, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": "0"} | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
