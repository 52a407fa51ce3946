"""The HTTP application: routes, what runs beside them, and how errors are answered."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any, Final

import asyncpg
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

import edgeml
from edgeml.errors import EdgemlError, GateError, MessageError, TrustError, UsageError
from edgeml_devices.server.alerts.measuring import Sources
from edgeml_devices.server.alerts.service import AlertService
from edgeml_devices.server.auth import caller_address
from edgeml_devices.server.blobs import BlobStore
from edgeml_devices.server.database import Database
from edgeml_devices.server.fleet.directory import Directory
from edgeml_devices.server.fleet.reports import ReportQueue
from edgeml_devices.server.guard import check_scope, guarded
from edgeml_devices.server.migrate import migrate
from edgeml_devices.server.pages import routes as page_routes
from edgeml_devices.server.pruning import prune
from edgeml_devices.server.refusal_log import RefusalLog
from edgeml_devices.server.refusals import RefusalError, error_answer
from edgeml_devices.server.rollouts import routes as rollout_routes
from edgeml_devices.server.rollouts.service import Ticker
from edgeml_devices.server.routes import (
    agent,
    alerts,
    audit,
    blob,
    device,
    export,
    group,
    metrics,
    otlp,
    polls,
    release,
    reports,
    repository,
    server,
    telemetry,
    token,
)
from edgeml_devices.server.routes.documents import add_schemas
from edgeml_devices.server.services import Services
from edgeml_devices.server.settings import ServerSettings
from edgeml_devices.server.signed.online_keys import OnlineKeys
from edgeml_devices.server.signed.repository import Repository
from edgeml_devices.server.telemetry.drifting import References
from edgeml_devices.server.telemetry.opening import open_store
from edgeml_devices.server.telemetry.quotas import Quotas
from edgeml_devices.server.telemetry.store import TelemetryStore
from edgeml_devices.server.telemetry.writer import GroupWriter

_LOG = logging.getLogger(__name__)
_FLUSH_S: Final = 5.0
_MINUTE_S: Final = 60.0
_HOUR_S: Final = 3600.0
_CANCEL_AGAIN_S: Final = 1.0


def create_app(settings: ServerSettings) -> FastAPI:
    """Make the application. Its lifespan opens and migrates the database."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with _services(settings) as services:
            app.state.services = services
            yield

    app = _App(
        title="edgeml server",
        version=edgeml.__version__,
        description="Devices, releases and rollouts. Send `Authorization: Bearer TOKEN`.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url="/v1/openapi.json",
    )
    for router in _ROUTERS:
        app.include_router(router)
    for kind, handler in _HANDLERS.items():
        app.add_exception_handler(kind, handler)
    return app


class _App(FastAPI):
    """FastAPI, but polls and telemetry pass it by: ten thousand polls wait at a time."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await super().__call__(scope, receive, send)
            return
        scope["app"] = self
        try:
            check_scope(scope)
            if scope["path"] == polls.PATH and scope["method"] == "GET":
                await polls.answer_poll(self.state.services, scope, send)
                return
            if scope["path"] == reports.PATH and scope["method"] == "POST":
                await reports.answer_reports(self.state.services, scope, receive, send)
                return
        except Exception as error:  # noqa: BLE001 - answered as everywhere else
            answer = await _answer_error(Request(scope), error)
            await answer(scope, receive, send)
            return
        limits = self.state.services.settings.limits
        await super().__call__(scope, guarded(receive, scope, limits), send)

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            openapi = super().openapi()
            add_schemas(openapi)
            polls.document(openapi)
            reports.document(openapi)
        return super().openapi()


@asynccontextmanager
async def _services(settings: ServerSettings) -> AsyncIterator[Services]:
    settings.data.mkdir(mode=0o700, parents=True, exist_ok=True)
    database = await Database.open(settings.url)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(database.close)
        await migrate(database)
        telemetry = await open_store(settings)
        stack.push_async_callback(telemetry.close)
        services = await _open_services(settings, database, telemetry)
        stack.push_async_callback(services.refusals.flush)
        stack.push_async_callback(services.directory.flush_seen)
        async with asyncio.TaskGroup() as beside:
            tasks = [beside.create_task(work) for work in _beside(services)]
            yield services
            await _cancel(tasks)


async def _cancel(tasks: Iterable[asyncio.Task[None]]) -> None:
    """End what runs, asked again where it missed that: ``asyncio.wait_for`` of Python 3.11 may swallow it."""
    running = set(tasks)
    while running:
        for task in running:
            task.cancel()
        _, running = await asyncio.wait(running, timeout=_CANCEL_AGAIN_S)


async def _open_services(settings: ServerSettings, database: Database, telemetry: TelemetryStore) -> Services:
    blobs = BlobStore(settings.blobs, settings.limits.blob_bytes)
    blobs.open()
    keys = OnlineKeys(settings.keys)
    keys.ensure()
    directory = Directory(database)
    await directory.load()
    repository = Repository(database, blobs, keys)
    references = References(database, blobs)
    sources = Sources(database, telemetry, references)
    return Services(
        settings,
        database,
        directory,
        RefusalLog(database),
        ReportQueue(database),
        blobs,
        repository,
        telemetry,
        GroupWriter(telemetry),
        Quotas(),
        references,
        AlertService(sources, settings.alert_rules, settings.alert_receivers),
    )


def _beside(services: Services) -> Iterator[Coroutine[Any, Any, None]]:
    """Give what runs beside the requests, until cancelled."""
    database = services.database
    yield services.reports.run()
    yield services.collector.run()
    yield services.telemetry.run()
    yield services.alerts.run()
    yield _repeat(services.settings.tick_s, Ticker(database, services.manifest_of).tick_all)
    yield _repeat(_FLUSH_S, services.directory.flush_seen)
    yield _repeat(_MINUTE_S, services.refusals.flush)
    yield _repeat(_MINUTE_S, services.repository.renew)
    yield _repeat(_HOUR_S, partial(prune, services))
    if database.dialect == "postgresql":
        from edgeml_devices.server.listening import listen

        yield listen(database, services.directory)


async def _repeat(every_s: float, work: Callable[[], Awaitable[object]]) -> None:
    """Do something again and again; a failure is logged, and the next turn tries again."""
    while True:
        await asyncio.sleep(every_s)
        try:
            await work()
        except Exception:  # noqa: BLE001 - the next turn tries again
            _LOG.exception("work beside the requests failed")


# --- errors


def _answer(status: int, body: dict[str, Any], headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse(body, status, headers)


async def _refusal(_: Request, error: RefusalError) -> JSONResponse:
    return _answer(error.status, error.answer(), error.headers)


async def _edgeml_error(_: Request, error: Exception) -> JSONResponse:
    status = next((status for kind, status in _STATUSES.items() if isinstance(error, kind)), 500)
    return _answer(status, error_answer(status, str(error)))


async def _invalid(_: Request, error: RequestValidationError) -> JSONResponse:
    """Name the first field that is wrong, as the agent's messages do."""
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    return _answer(400, error_answer(400, f"{place}: {first['msg']}"))


async def _http(request: Request, error: HTTPException) -> JSONResponse:
    if error.status_code in _ABUSE:
        services: Services = request.app.state.services
        what = f"{request.method} {request.url.path}"
        await services.refusals.note(f"anonymous:{caller_address(request)}", what, str(error.detail))
    return _answer(
        error.status_code, error_answer(error.status_code, str(error.detail)), dict(error.headers or {})
    )


async def _same_moment(_: Request, error: IntegrityError) -> JSONResponse:
    _LOG.warning("two wrote the same: %s", error)
    return _answer(
        409, error_answer(409, "somebody else did the same at the same moment; look, and try again")
    )


async def _database_busy(_: Request, error: Exception) -> JSONResponse:
    _LOG.error("the database failed: %s", error)
    return _answer(
        503, error_answer(503, "the database does not answer; try again later"), {"Retry-After": "5"}
    )


async def _hung_up(_: Request, error: Exception) -> JSONResponse:  # noqa: ARG001 - a handler's signature
    return _answer(400, error_answer(400, "the body ended too soon"))  # to nobody


async def _unexpected(_: Request, error: Exception) -> JSONResponse:
    _LOG.error("a request failed", exc_info=error)
    return _answer(500, error_answer(500, "the server failed at this; its log has the details"))


async def _answer_error(request: Request, error: Exception) -> JSONResponse:
    handler = next(handler for kind, handler in _HANDLERS.items() if isinstance(error, kind))
    answer: JSONResponse = await handler(request, error)
    return answer


_ROUTERS: Final = (
    agent.router,
    otlp.router,
    export.router,
    device.router,
    group.router,
    release.router,
    rollout_routes.router,
    repository.router,
    blob.router,
    telemetry.router,
    metrics.router,
    alerts.router,
    token.router,
    audit.router,
    server.router,
    page_routes.router,
)
_ABUSE: Final = (408, 413)
"""Bodies that are too slow or too long: whoever sends them may mean harm."""
_STATUSES: Final = {MessageError: 400, UsageError: 400, TrustError: 403, GateError: 409}
_HANDLERS: Final[dict[type[Exception], Any]] = {
    RefusalError: _refusal,
    EdgemlError: _edgeml_error,
    RequestValidationError: _invalid,
    HTTPException: _http,
    IntegrityError: _same_moment,
    DBAPIError: _database_busy,
    sqlite3.Error: _database_busy,
    PoolTimeoutError: _database_busy,
    asyncpg.PostgresError: _database_busy,
    asyncpg.InterfaceError: _database_busy,
    ConnectionError: _database_busy,
    ClientDisconnect: _hung_up,
    Exception: _unexpected,
}
