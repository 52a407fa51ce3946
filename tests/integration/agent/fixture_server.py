"""A small server that speaks the agent's part of the protocol, over a real socket, from a folder."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from edgeml_devices.messages import Assignment, DesiredState, Event, Report

from edgeml import typed_json

DEVICE_ID = "device-1"
_RANGE = re.compile(r"bytes=(\d+)-")


@dataclass
class Fleet:
    """What the server knows; one device."""

    folder: Path
    generation: int = 0
    models: dict[str, Assignment] = field(default_factory=dict)
    reports: list[Report] = field(default_factory=list)
    events: dict[tuple[str, int], Event] = field(default_factory=dict)
    health: dict[tuple[str, int], Any] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    """By token the name that the device joined with."""
    join_tokens: set[str] = field(default_factory=lambda: {"join"})
    requests: list[tuple[str, str, int]] = field(default_factory=list)
    """Method, path and status of each answer."""
    blob_bytes: int = 0
    changed: threading.Condition = field(default_factory=threading.Condition)
    stopping: bool = False
    refuses: Callable[[Report], bool] = field(default=lambda _: False)
    """Which reports are answered with 400."""
    report_bytes: list[int] = field(default_factory=list)
    """Of each report's body, refused ones included."""
    says_stored: bool = True
    """``False``: a broken server, which says that it has stored nothing."""
    holds_polls: bool = True
    """``False``: a broken server, which answers each poll at once with the state."""
    lost_answers: int = 0
    """So many answers to enrolments are lost on the way."""

    def assign(self, model: str, release: int | None, attempt: int = 1, **options: Any) -> None:
        with self.changed:
            self.models[model] = Assignment(release, attempt, **options)
            self.generation += 1
            self.changed.notify_all()

    def unassign(self, model: str) -> None:
        with self.changed:
            del self.models[model]
            self.generation += 1
            self.changed.notify_all()

    def wait_for(self, condition: Any, timeout_s: float = 120.0) -> None:
        """Wait until ``condition(self)`` holds; it is looked at after each report."""
        with self.changed:
            if not self.changed.wait_for(lambda: condition(self), timeout_s):
                raise AssertionError(f"not within {timeout_s:g} s; the last report: {self.reports[-1:]}")

    def wait_for_state(self, model: str, state: str, release: int | None, timeout_s: float = 120.0) -> Event:
        """Wait for the event of a state."""

        def found(fleet: Fleet) -> Event | None:
            wanted = [
                event
                for event in fleet.events.values()
                if (event.model, event.state, event.release) == (model, state, release)
            ]
            return wanted[-1] if wanted else None

        self.wait_for(found, timeout_s)
        event = found(self)
        assert event is not None
        return event

    def is_ready(self, model: str) -> bool:
        """Say whether the device told that a release is tested, and waits."""
        return (
            bool(self.reports) and model in self.reports[-1].models and self.reports[-1].models[model].ready
        )

    def states(self, model: str) -> list[str]:
        """Give the states that the device told of, in order."""
        return [str(event.state) for event in self.events.values() if event.model == model]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        path = urlsplit(self.path)
        fleet = self.server.fleet
        if path.path == "/v1/agent/state":
            self._state(float(parse_qs(path.query)["wait"][0]))
        elif path.path.startswith("/v1/blobs/sha256/"):
            if self._device() is not None:
                self._file(fleet.folder / "blobs" / "sha256" / Path(path.path).name, blob=True)
        elif path.path.startswith("/v1/repository/metadata/"):
            self._file(fleet.folder / "metadata" / Path(path.path).name)
        elif path.path.startswith("/v1/repository/targets/"):
            self._file(fleet.folder / "targets" / path.path.removeprefix("/v1/repository/targets/"))
        else:
            self._error(404, "no such call")

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        path = urlsplit(self.path).path
        if path == "/v1/enrol":
            self._enrol(body)
        elif path == "/v1/agent/reports" and self._device() is not None:
            self._report(body)

    def _state(self, wait_s: float) -> None:
        if self._device() is None:
            return
        fleet = self.server.fleet
        asked = self.headers.get("If-None-Match", "").strip('"')
        with fleet.changed:
            if fleet.holds_polls:
                fleet.changed.wait_for(lambda: fleet.stopping or str(fleet.generation) != asked, wait_s)
            if self._device() is None:
                return
            if str(fleet.generation) == asked and fleet.holds_polls:
                self._answer(304, b"")
                return
            state = DesiredState(fleet.generation, dict(fleet.models), 5.0)
        self._json(200, typed_json.write(state))

    def _report(self, body: Any) -> None:
        report = typed_json.read(Report, body, "report")
        fleet = self.server.fleet
        with fleet.changed:
            fleet.report_bytes.append(int(self.headers["Content-Length"]))
            if fleet.refuses(report):
                fleet.changed.notify_all()
                self._error(400, "the body: cannot be")
                return
            fleet.reports.append(report)
            for event in report.events:
                fleet.events.setdefault((report.epoch, event.seq), event)
            for window in report.health:
                fleet.health.setdefault((report.epoch, window.seq), window)
            fleet.changed.notify_all()
        self._json(
            200,
            {
                "events": max((event.seq for event in report.events if fleet.says_stored), default=-1),
                "health": max((window.seq for window in report.health if fleet.says_stored), default=-1),
            },
        )

    def _enrol(self, body: Any) -> None:
        fleet = self.server.fleet
        known = fleet.tokens.get(body["device_token"])
        if known is None and body["join_token"] not in fleet.join_tokens:
            self._error(401, "no such join token")
            return
        if known is None:
            fleet.join_tokens.discard(body["join_token"])
            fleet.tokens[body["device_token"]] = DEVICE_ID
        if fleet.lost_answers:
            fleet.lost_answers -= 1
            self.close_connection = True
            return
        name = fleet.names.setdefault(body["device_token"], body["name"])
        answer = {"device_id": DEVICE_ID, "name": name, "labels": body.get("labels", {})}
        self._json(201 if known is None else 200, answer)

    def _device(self) -> str | None:
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        known = self.server.fleet.tokens.get(token)
        if known is None:
            self._error(401, "no such token")
        return known

    def _file(self, path: Path, *, blob: bool = False) -> None:
        if not path.is_file():
            self._error(404, f"no {path.name}")
            return
        content = path.read_bytes()
        found = _RANGE.fullmatch(self.headers.get("Range", ""))
        headers = {"ETag": f'"{path.name}"'} if blob else {}
        if found and int(found[1]) >= len(content):
            self._answer(416, b"", {"Content-Range": f"bytes */{len(content)}"})
            return
        start = int(found[1]) if found else 0
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self._answer(206 if start else 200, content[start:], headers, counted=blob)

    def _json(self, status: int, document: Any) -> None:
        self._answer(status, json.dumps(document).encode(), {"Content-Type": "application/json"})

    def _error(self, status: int, message: str) -> None:
        self._json(status, {"error": {"type": "Error", "message": message}})

    def _answer(
        self, status: int, content: bytes, headers: dict[str, str] | None = None, *, counted: bool = False
    ) -> None:
        self.server.fleet.requests.append((self.command, self.path, status))
        try:
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            if status != 304:
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            for start in range(0, len(content), 16 * 1024):
                chunk = content[start : start + 16 * 1024]
                self.wfile.write(chunk)
                if counted:
                    self.server.fleet.blob_bytes += len(chunk)
        except OSError:
            self.close_connection = True


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    fleet: Fleet

    def handle_error(self, *_: Any) -> None:
        """Say nothing of connections that agents cut."""


Server = tuple[Fleet, str]
"""What it knows, and its address."""


@contextmanager
def serving(folder: Path) -> Iterator[Server]:
    """Serve a repository's folder; give what the server knows, and its address."""
    server = _Server(("127.0.0.1", 0), _Handler)
    server.fleet = Fleet(folder)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server.fleet, f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.fleet.stopping = True
        with server.fleet.changed:
            server.fleet.changed.notify_all()
        server.shutdown()
        server.server_close()
        thread.join()
