"""The server as processes of the operating system: its socket, its signals, its workers."""

from __future__ import annotations

import asyncio
import fcntl
import gc
import json
import os
import platform
import resource
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any, Final

import uvicorn
from sqlalchemy import func, select

from edgeml.errors import ServerError, UsageError
from edgeml.signals import run_async
from edgeml_devices.server import auth, tables
from edgeml_devices.server.alerts.receivers import read_receivers
from edgeml_devices.server.alerts.rules import read_rules
from edgeml_devices.server.app import create_app
from edgeml_devices.server.database import Database
from edgeml_devices.server.migrate import migrate
from edgeml_devices.server.protocol import Answer, Headers, ShortRoute, impatient
from edgeml_devices.server.routes import reports
from edgeml_devices.server.services import Services
from edgeml_devices.server.settings import ServerSettings

_BACKLOG: Final = 4096
_KEEP_ALIVE_S: Final = 75
"""Longer than the longest poll, so that a device keeps its connection."""
_END_S: Final = 5
"""For requests that are under way when the server ends."""
_RESTART_S: Final = 1.0
_STARTED: Final = 5.0
"""A worker that ends sooner could not start."""


def check(settings: ServerSettings) -> None:
    """Check the settings.

    Raises:
        UsageError: they do not go together, or a file is not there.
    """
    if settings.workers > 1 and settings.url.get_backend_name() == "sqlite":
        raise UsageError(
            f"{settings.workers} workers need PostgreSQL (--database postgresql://…): SQLite has one writer"
        )
    if (settings.tls_cert is None) != (settings.tls_key is None):
        raise UsageError("TLS needs both: --tls-cert and --tls-key")
    for file in (settings.tls_cert, settings.tls_key):
        if file is not None and not file.is_file():
            raise UsageError(f"no such file: {file}")
    _check_tls(settings)
    if settings.alert_rules is not None:
        read_rules(settings.alert_rules)
    if settings.alert_receivers is not None:
        read_receivers(settings.alert_receivers)


def _check_tls(settings: ServerSettings) -> None:
    if settings.tls_cert is None or settings.tls_key is None:
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(settings.tls_cert, settings.tls_key)
    except ssl.SSLError as error:
        raise UsageError(
            f"{settings.tls_cert} and {settings.tls_key} are no certificate and its key, in PEM: {error}"
        ) from error


def prepare(settings: ServerSettings) -> str | None:
    """Bring the tables up to date; give an admin token on the first start.

    Raises:
        ServerError: the database is of a newer version.
    """
    return run_async(_first_token(settings))


async def _first_token(settings: ServerSettings) -> str | None:
    database = await Database.reach(settings.url)
    try:
        await migrate(database)
        async with database.writing() as transaction:
            count = (
                await transaction.connection.execute(select(func.count()).select_from(tables.tokens))
            ).scalar()
            if count:
                return None
            return (await auth.make_token(transaction, "server", "first", "admin"))[1]
    finally:
        await database.close()


@contextmanager
def only_server(settings: ServerSettings) -> Iterator[None]:
    """Make the data folder; be the only process on an SQLite database, on PostgreSQL others may serve, too.

    Raises:
        UsageError: another one runs.
    """
    settings.data.mkdir(mode=0o700, parents=True, exist_ok=True)
    if settings.url.get_backend_name() != "sqlite":
        yield
        return
    with (settings.data / "server.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(
                f"another server runs with the data in {settings.data}; end it first, or give another folder"
            ) from error
        yield


def open_socket(settings: ServerSettings) -> socket.socket:
    """Bind and listen.

    Raises:
        UsageError: the address is not this machine's, or in use.
    """
    try:
        return socket.create_server(
            (settings.host, settings.port), family=_family(settings.host), backlog=_BACKLOG
        )
    except OSError as error:
        raise UsageError(
            f"cannot listen on {settings.host}:{settings.port}: {error.strerror or error}"
        ) from error


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def url_of(settings: ServerSettings, listening: socket.socket) -> str:
    """Give the address that the server listens on."""
    return _url(settings, settings.host, listening)


def called_url(settings: ServerSettings, listening: socket.socket) -> str:
    """Give an address to call the server by; one that listens on all has no name but the machine's."""
    host = platform.node() if settings.host in {"0.0.0.0", "::"} else settings.host  # noqa: S104 - read only
    return _url(settings, host, listening)


def _url(settings: ServerSettings, host: str, listening: socket.socket) -> str:
    place = f"[{host}]" if ":" in host else host
    return f"{'https' if settings.tls_cert else 'http'}://{place}:{listening.getsockname()[1]}"


def serve(settings: ServerSettings, listening: socket.socket) -> None:
    """Serve in this process until SIGTERM or SIGINT.

    Raises:
        ServerError: it could not start.
    """
    _open_many_files()
    _collect_seldom()
    server = build_server(settings)
    server.run([listening])
    if not server.started:
        raise ServerError("the server could not start; what it logged above says why")


def build_server(settings: ServerSettings) -> uvicorn.Server:
    """Give the HTTP server of one process; ``run([socket])`` serves."""
    app = create_app(settings)
    noting: set[asyncio.Task[None]] = set()

    def note_slow(address: str) -> None:
        services: Services = app.state.services
        reason = f"the head of a request came too slowly ({settings.limits.header_s:g} s)"
        task = asyncio.ensure_future(services.refusals.note(f"anonymous:{address}", "connection", reason))
        noting.add(task)
        task.add_done_callback(noting.discard)

    def take(headers: Headers, body: bytes, answer: Answer) -> None:
        reports.take_reports(app.state.services, headers, body, answer)

    config = uvicorn.Config(
        app,
        http=impatient(settings.limits.header_s, note_slow, ShortRoute(reports.PATH.encode(), take)),
        ws="none",
        lifespan="on",
        log_level="warning",
        access_log=False,
        server_header=False,
        backlog=_BACKLOG,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=_END_S,
        proxy_headers=settings.behind_proxy,
        forwarded_allow_ips="*" if settings.behind_proxy else None,
        ssl_certfile=settings.tls_cert,
        ssl_keyfile=settings.tls_key,
    )
    return _Server(config)


class _Server(uvicorn.Server):
    """Ends the polls that wait when it is told to end, and then itself, with success."""

    def handle_exit(self, sig: int, _frame: FrameType | None) -> None:
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        app: Any = self.config.app
        app.state.services.directory.drain()
        await super().shutdown(sockets)


def _collect_seldom() -> None:
    """Look for cycles seldom: a batch of telemetry is thousands of objects, and none is part of one."""
    gc.freeze()
    gc.set_threshold(100_000, 20, 50)
    gc.enable()


def _open_many_files() -> None:
    """Allow as many connections as the system allows: each device that waits is one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


# --- several processes


def supervise(settings: ServerSettings, listening: socket.socket) -> None:
    """Serve in ``settings.workers`` processes, each started again if it dies, until SIGTERM or SIGINT.

    Raises:
        ServerError: a worker could not start.
    """
    ends: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: ends.append(number))
    # its other end closes with this process, however that dies
    alive, _kept = os.pipe()
    fields = {
        name: str(value) if isinstance(value, Path) else value for name, value in asdict(settings).items()
    }
    del fields["limits"]
    command = [sys.executable, "-m", __name__, str(listening.fileno()), str(alive)]

    def start() -> tuple[float, subprocess.Popen[bytes]]:
        environment = os.environ | {"EDGEML_SERVER_WORKER": json.dumps(fields)}
        fds = (listening.fileno(), alive)
        return time.monotonic(), subprocess.Popen(command, pass_fds=fds, env=environment)

    running = [start() for _ in range(settings.workers)]
    try:
        while not ends:
            time.sleep(0.1)
            for place, (begun, worker) in enumerate(running):
                if worker.poll() is not None:
                    if time.monotonic() - begun < _STARTED and worker.returncode > 0:
                        raise ServerError("a worker could not start; what it logged above says why")
                    time.sleep(_RESTART_S)
                    running[place] = start()
    finally:
        for _, worker in running:
            worker.terminate()
        for _, worker in running:
            try:
                worker.wait(2 * _END_S)
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()


def _work(listening_fd: int, alive_fd: int) -> None:
    """Be one worker: serve, and end when the supervisor is gone."""
    import threading

    fields = json.loads(os.environ.pop("EDGEML_SERVER_WORKER"))
    for name in ("data", "tls_cert", "tls_key", "alert_rules", "alert_receivers"):
        fields[name] = None if fields[name] is None else Path(fields[name])

    def watch() -> None:
        os.read(alive_fd, 1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()
    serve(ServerSettings(**fields), socket.socket(fileno=listening_fd))


if __name__ == "__main__":
    _work(int(sys.argv[1]), int(sys.argv[2]))
