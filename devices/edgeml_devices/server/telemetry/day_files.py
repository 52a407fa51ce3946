"""The files of the SQLite store: one for each day of receipt, and the catalogue of hourly sums.

A day file stands alone: it has the names, the boots and the streams that its reports refer to. The newest one
has the truth about streams; they are carried on to the next file in the transaction that makes it.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from edgeml.errors import ServerError
from edgeml_devices.server.telemetry.wire_types import MODELS

SCHEMA: Final = 1
CATALOGUE: Final = "catalog.db"
_BUSY_S: Final = 10.0
_PAGE_BYTES: Final = 8192
_WAL_BYTES: Final = 16 << 20

_DAY: Final = """
CREATE TABLE stream (id INTEGER PRIMARY KEY, device TEXT NOT NULL, epoch TEXT NOT NULL, state BLOB NOT NULL,
    UNIQUE (device, epoch));
CREATE TABLE boot (id INTEGER PRIMARY KEY, stream INTEGER NOT NULL, boot_id TEXT NOT NULL,
    target TEXT NOT NULL, UNIQUE (stream, boot_id, target));
CREATE TABLE series (id INTEGER PRIMARY KEY, model TEXT NOT NULL, release INTEGER NOT NULL,
    variant TEXT NOT NULL, runtime TEXT NOT NULL, reference TEXT NOT NULL,
    UNIQUE (model, release, variant, runtime, reference));
CREATE TABLE name (id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE);
CREATE TABLE report (id INTEGER PRIMARY KEY, at INTEGER NOT NULL, boot INTEGER NOT NULL,
    first INTEGER NOT NULL, last INTEGER NOT NULL, link INTEGER NOT NULL, duration INTEGER NOT NULL,
    windows INTEGER NOT NULL, calls INTEGER NOT NULL, merged INTEGER NOT NULL, evicted INTEGER NOT NULL,
    damaged INTEGER NOT NULL, overwritten INTEGER NOT NULL, system BLOB);
CREATE INDEX report_at ON report (at, boot);
CREATE TABLE model (id INTEGER PRIMARY KEY, series INTEGER NOT NULL, calls INTEGER NOT NULL,
    errors INTEGER NOT NULL, total BLOB, body BLOB NOT NULL, samples BLOB);
"""
"""``at`` (a window's end) and ``duration`` are µs. Rows of ``model`` belong to report ``id / MODELS``."""

FROM_REPORT: Final = """
    FROM report r CROSS JOIN boot b ON b.id = r.boot CROSS JOIN stream s ON s.id = b.stream"""
"""CROSS JOIN: in this order."""
FROM_MODEL: Final = f"""{FROM_REPORT}
    CROSS JOIN model m ON m.id BETWEEN r.id * {MODELS} AND r.id * {MODELS} + {MODELS - 1}
    CROSS JOIN series n ON n.id = m.series"""

_CATALOGUE: Final = """
CREATE TABLE device (id INTEGER PRIMARY KEY, device TEXT NOT NULL UNIQUE);
CREATE TABLE series (id INTEGER PRIMARY KEY, model TEXT NOT NULL, release INTEGER NOT NULL,
    variant TEXT NOT NULL, target TEXT NOT NULL, UNIQUE (model, release, variant, target));
CREATE TABLE hour (hour INTEGER NOT NULL, device INTEGER NOT NULL, series INTEGER NOT NULL,
    calls INTEGER NOT NULL, errors INTEGER NOT NULL, latency BLOB NOT NULL,
    PRIMARY KEY (hour, device, series)) WITHOUT ROWID;
CREATE TABLE total (series INTEGER PRIMARY KEY, calls INTEGER NOT NULL, errors INTEGER NOT NULL,
    latency BLOB NOT NULL, last INTEGER NOT NULL);
CREATE TABLE rolled (day TEXT PRIMARY KEY, report INTEGER NOT NULL, closed INTEGER NOT NULL);
CREATE TABLE kept (name TEXT PRIMARY KEY, since INTEGER NOT NULL);
"""
"""``device`` 0 of ``hour`` is the whole fleet. ``rolled`` says which reports the sums hold,
and of which days there will be no more.
``last`` is the end of the newest window, µs."""


def day_of(at: float) -> str:
    """Give the day (UTC) of a moment: ``2026-01-31``."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d")


def file_of(folder: Path, day: str) -> Path:
    """Give the file of a day."""
    return folder / f"{day}.db"


def identity(folder: Path, day: str) -> tuple[int, int] | None:
    """Tell the file of a day from another of its name; ``None``: there is none."""
    try:
        status = file_of(folder, day).stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def days_of(folder: Path) -> list[str]:
    """Give the days that have a file, the oldest first."""
    return sorted(path.stem for path in folder.glob("[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9].db"))


def connect(file: Path) -> sqlite3.Connection:
    """Open a file to write; a commit is on the disk when it comes back."""
    connection = sqlite3.connect(file, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
    connection.execute(f"PRAGMA page_size = {_PAGE_BYTES}")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(f"PRAGMA journal_size_limit = {_WAL_BYTES}")
    return connection


def connect_reader(file: Path) -> sqlite3.Connection:
    """Open a file that is there, to read."""
    connection = sqlite3.connect(
        f"{file.absolute().as_uri()}?mode=rw",
        uri=True,
        timeout=_BUSY_S,
        isolation_level=None,
        check_same_thread=False,
    )
    connection.execute("PRAGMA query_only = ON")
    return connection


def open_made(folder: Path, day: str) -> sqlite3.Connection | None:
    """Open a day's file to read; ``None``: it was pruned a moment ago, or is being made."""
    try:
        connection = connect_reader(file_of(folder, day))
    except sqlite3.OperationalError:
        return None
    if _version(connection):
        return connection
    connection.close()
    return None


def open_catalogue(folder: Path) -> sqlite3.Connection:
    """Open the catalogue, made if need be.

    Raises:
        ServerError: it is of a newer version.
    """
    connection = connect(folder / CATALOGUE)
    _make(connection, _CATALOGUE)
    return connection


def open_day(folder: Path, day: str) -> sqlite3.Connection:
    """Open a day's file; a new one takes over the streams of the newest before it, in one transaction.

    Raises:
        ServerError: it is of a newer version.
    """
    connection = connect(file_of(folder, day))
    before = [one for one in days_of(folder) if one < day]
    while before:
        with closing(connect(file_of(folder, before[-1]))) as older:
            if _version(older):
                break
        # a file whose making was cut short is as good as none
        before.pop()
    _make(connection, _DAY, file_of(folder, before[-1]) if before else None)
    return connection


def _make(connection: sqlite3.Connection, schema: str, before: Path | None = None) -> None:
    found = _version(connection)
    if found > SCHEMA:
        raise ServerError("this telemetry is of a newer version of edgeml; use that version")
    if found:
        return
    if before is not None:
        connection.execute("ATTACH ? AS before", (str(before),))
    connection.execute("BEGIN IMMEDIATE")
    for statement in schema.split(";\n"):
        connection.execute(statement)
    if before is not None:
        connection.execute("INSERT INTO main.stream SELECT * FROM before.stream")
    connection.execute(f"PRAGMA user_version = {SCHEMA}")
    connection.execute("COMMIT")
    if before is not None:
        connection.execute("DETACH before")


def _version(connection: sqlite3.Connection) -> int:
    found: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return found
