"""A collector with no database: judges streams as the server does, and keeps all that it took."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from edgeml_devices.server.refusals import RefusalError
from edgeml_devices.server.telemetry import wire
from edgeml_devices.server.telemetry.store import Verdict
from edgeml_devices.server.telemetry.streams import Stream, Window, receive

from edgeml.telemetry.report import Acknowledged, Batch, Report

TOKEN = "device-token"  # noqa: S105 - of this test

Answer = tuple[int, bytes, dict[str, str]]


@dataclass
class Collector:
    """What was stored; ``before`` may answer in the server's place, ``after`` may drop its answer."""

    before: Callable[[Batch], Answer | None] = lambda _batch: None
    after: Callable[[Batch], bool] = lambda _batch: True
    """False: the answer is lost though all is stored."""
    has_key: bool = True
    """Without it everything that comes is stored: what the exactly-once key is for."""
    streams: dict[str, Stream] = field(default_factory=dict)
    stored: list[tuple[str, Report]] = field(default_factory=list)
    batches: list[Batch] = field(default_factory=list)
    content_types: set[str] = field(default_factory=set)
    tells_acked: bool = True
    """Whether a refusal of a fork says what of it was stored before."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, headers: Any, body: bytes) -> Answer | None:
        if headers["Authorization"] != f"Bearer {TOKEN}":
            return 401, b"{}", {}
        try:
            batch = wire.decode(body, headers["Content-Type"], headers["Content-Encoding"] or "")
        except RefusalError as error:
            return error.status, b'{"error": {"message": "refused"}}', {}
        with self.lock:
            self.content_types.add(headers["Content-Type"])
            self.batches.append(batch)
            early = self.before(batch)
            if early is not None:
                return early
            said = self._store(batch)
            return said if self.after(batch) else None

    def _store(self, batch: Batch) -> Answer:
        windows = [
            Window(one.begins, one.seq, one.link, one.prev, int(one.at * 1e6)) for one in batch.reports
        ]
        if not self.has_key:
            self.stored += [(batch.epoch, one) for one in batch.reports]
            return 200, wire.encode(Acknowledged(batch.reports[-1].seq)), {}
        done = receive(self.streams.get(batch.epoch, Stream()), windows)
        if Verdict.FORK in done.verdicts:
            text = f'{{"error": {{"message": "fork"}}, "acked_through": {done.acked_through}}}'
            return 409, text.encode() if self.tells_acked else b"", {}
        self.streams[batch.epoch] = done.stream
        for verdict, report in zip(done.verdicts, batch.reports, strict=True):
            if verdict is Verdict.STORED:
                self.stored.append((batch.epoch, report))
        return 200, wire.encode(Acknowledged(done.acked_through)), {}

    # --- what tests ask

    def numbers(self, epoch: str) -> Counter[int]:
        """Give how often each window of a stream was stored, merged ones by each of their numbers."""
        found: Counter[int] = Counter()
        for stream, report in self.stored:
            if stream == epoch:
                found.update(range(report.begins, report.seq + 1))
        return found

    def calls(self) -> int:
        return sum(model.calls for _, report in self.stored for model in report.models)


class CollectorServer(ThreadingHTTPServer):
    """Serves a :class:`Collector` on a port of its own; ``with`` stops it."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, collector: Collector) -> None:
        self.collector = collector
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self._thread = threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def server_close(self) -> None:
        self.shutdown()
        self._thread.join()
        super().server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: CollectorServer

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        answer = self.server.collector.answer(self.headers, body)
        if answer is None or self.path != "/v1/reports":
            self.close_connection = True
            return
        status, content, headers = answer
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
        del format, arguments
