"""Points of foreign agents in a file of their own: not counted once, so not among what is."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

from edgeml_devices.server.telemetry import day_files
from edgeml_devices.server.telemetry.selecting import point_row
from edgeml_devices.server.telemetry.store import Point

FILE: Final = "points.db"
_TABLE: Final = """CREATE TABLE IF NOT EXISTS point (at INTEGER NOT NULL, device TEXT NOT NULL,
    name TEXT NOT NULL, unit TEXT NOT NULL, kind TEXT NOT NULL, temporality TEXT NOT NULL,
    attributes TEXT NOT NULL, value REAL NOT NULL, buckets TEXT NOT NULL)"""
_INDEX: Final = "CREATE INDEX IF NOT EXISTS point_at ON point (name, at)"


def append(folder: Path, points: Sequence[Point]) -> None:
    """Add points in one commit."""
    with closing(day_files.connect(folder / FILE)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(_TABLE)
        connection.execute(_INDEX)
        connection.executemany("INSERT INTO point VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", map(point_row, points))
        connection.execute("COMMIT")


def read(folder: Path, name: str, since_us: int, until_us: int, limit: int) -> list[Point]:
    """Give the newest points of a name, the oldest first."""
    try:
        connection = day_files.connect_reader(folder / FILE)
    except sqlite3.OperationalError:
        return []
    with closing(connection):
        rows = connection.execute(
            "SELECT * FROM point WHERE name = ? AND at > ? AND at <= ? "
            "ORDER BY at DESC, device DESC, attributes DESC, value DESC LIMIT ?",
            (name, since_us, until_us, limit),
        ).fetchall()
    return [Point(at / 1e6, *rest) for at, *rest in reversed(rows)]


def prune(folder: Path, before_us: int) -> None:
    """Remove old points."""
    if (folder / FILE).exists():
        with closing(day_files.connect(folder / FILE)) as connection:
            connection.execute("DELETE FROM point WHERE at <= ?", (before_us,))
