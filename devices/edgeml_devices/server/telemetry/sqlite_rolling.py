"""Keeps hourly sums of the SQLite store: each report is added once, as the sums say which they hold."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

from edgeml_devices.server.telemetry import day_files, rolling
from edgeml_devices.server.telemetry.packing import pack_histogram
from edgeml_devices.server.telemetry.rolling import FLEET, Fresh, Key, Piece, Sum

_TOGETHER: Final = 4000
"""Reports that are added in one transaction."""
_NEW: Final = f"""SELECT s.device, r.at, n.model, n.release, n.variant, b.target, m.calls, m.errors,
    m.total {day_files.FROM_MODEL} WHERE r.id > ? AND r.id <= ?"""


class Roller:
    """Adds reports to hourly sums. All methods are called from one thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._catalogue = day_files.open_catalogue(folder)

    def roll(self) -> bool:
        """Add some reports; say whether there are more."""
        days = day_files.days_of(self._folder)
        closed = closed_days(self._catalogue)
        for day in days:
            if day in closed:
                continue
            reader = day_files.open_made(self._folder, day)
            if reader is not None:
                with closing(reader):
                    count = self._roll_day(reader, day)
                if count == _TOGETHER:
                    return True
                if day < days[-1]:
                    # a file is not written any more once there is a later one
                    self._catalogue.execute("UPDATE rolled SET closed = 1 WHERE day = ?", (day,))
        return False

    def _roll_day(self, reader: sqlite3.Connection, day: str) -> int:
        done = rolled(self._catalogue, day)
        newest = reader.execute("SELECT coalesce(max(id), 0) FROM report").fetchone()[0]
        if newest < done:
            # the file was removed, and begins anew
            done = 0
        until = min(newest, done + _TOGETHER)
        if until <= done:
            return 0
        pieces, last_us = not_added(reader, done, until)
        hours, totals = rolling.sums_of(pieces)
        with _immediate(self._catalogue) as catalogue:
            places = _Places(catalogue)
            for key, one in hours.items():
                _add(catalogue, places.of(key), key, one)
            for key, one in totals.items():
                _add_total(catalogue, places.of(key)[1], key, one, last_us[key])
            catalogue.execute("INSERT OR REPLACE INTO rolled VALUES (?, ?, 0)", (day, until))
        return int(until - done)

    def forget_hours(self, before: int) -> None:
        """Remove sums of old hours."""
        with _immediate(self._catalogue) as catalogue:
            catalogue.execute("DELETE FROM hour WHERE hour < ?", (before,))

    def forget_day(self, day: str) -> None:
        """Note that a day's file is gone."""
        self._catalogue.execute("DELETE FROM rolled WHERE day = ?", (day,))

    def keep_from(self, since_us: int) -> None:
        """Note which windows are forgotten."""
        self._catalogue.execute(
            "INSERT INTO kept VALUES ('windows', ?) "
            "ON CONFLICT DO UPDATE SET since = max(since, excluded.since)",
            (since_us,),
        )

    def kept_us(self) -> int:
        """Give the moment before which windows are forgotten."""
        row = self._catalogue.execute("SELECT since FROM kept").fetchone()
        return row[0] if row else 0

    def truncate_wal(self) -> None:
        """Give the log's space back."""
        self._catalogue.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()

    def close(self) -> None:
        """Close the catalogue."""
        self._catalogue.close()


@contextmanager
def _immediate(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield connection
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


class _Places:
    """Numbers of devices and series in the catalogue."""

    def __init__(self, catalogue: sqlite3.Connection) -> None:
        self._catalogue = catalogue
        self._devices: dict[str, int] = {FLEET: 0}
        self._series: dict[tuple[Any, ...], int] = {}

    def of(self, key: Key) -> tuple[int, int]:
        device = self._devices.get(key.device_id)
        if device is None:
            device = self._devices[key.device_id] = self._find("device", ("device",), (key.device_id,))
        name = (key.model, key.release, key.variant, key.target)
        series = self._series.get(name)
        if series is None:
            columns = ("model", "release", "variant", "target")
            series = self._series[name] = self._find("series", columns, name)
        return device, series

    def _find(self, table: str, columns: tuple[str, ...], values: tuple[Any, ...]) -> int:
        where = " AND ".join(f"{column} = ?" for column in columns)
        row = self._catalogue.execute(f"SELECT id FROM {table} WHERE {where}", values).fetchone()  # noqa: S608 - ours
        if row is not None:
            return int(row[0])
        marks = ", ?" * len(values)
        return self._catalogue.execute(f"INSERT INTO {table} VALUES (NULL{marks})", values).lastrowid or 0  # noqa: S608


def _add(catalogue: sqlite3.Connection, place: tuple[int, int], key: Key, one: Sum) -> None:
    at = (key.hour, *place)
    row = catalogue.execute(
        "SELECT calls, errors, latency FROM hour WHERE hour = ? AND device = ? AND series = ?", at
    ).fetchone()
    if row is not None:
        pieces = [Piece(key, *row), Piece(key, one.calls, one.errors, pack_histogram(one.latency))]
        one = rolling.add_up(pieces)[key]
    catalogue.execute(
        "INSERT OR REPLACE INTO hour VALUES (?, ?, ?, ?, ?, ?)",
        (*at, one.calls, one.errors, pack_histogram(one.latency)),
    )


def _add_total(catalogue: sqlite3.Connection, series: int, key: Key, one: Sum, last_us: int) -> None:
    row = catalogue.execute(
        "SELECT calls, errors, latency, last FROM total WHERE series = ?", (series,)
    ).fetchone()
    if row is not None:
        pieces = [Piece(key, *row[:3]), Piece(key, one.calls, one.errors, pack_histogram(one.latency))]
        one, last_us = rolling.add_up(pieces)[key], max(last_us, row[3])
    catalogue.execute(
        "INSERT OR REPLACE INTO total VALUES (?, ?, ?, ?, ?)",
        (series, one.calls, one.errors, pack_histogram(one.latency), last_us),
    )


def not_added(reader: sqlite3.Connection, after: int, until: int = 2**62) -> Fresh:
    """Give what reports of a day add to sums."""
    return rolling.fresh(reader.execute(_NEW, (after, until)))


def closed_days(catalogue: sqlite3.Connection) -> set[str]:
    """Give the days that sums hold as a whole."""
    return {row[0] for row in catalogue.execute("SELECT day FROM rolled WHERE closed")}


def rolled(catalogue: sqlite3.Connection, day: str) -> int:
    """Give the newest report of a day that the sums hold."""
    row = catalogue.execute("SELECT report FROM rolled WHERE day = ?", (day,)).fetchone()
    return row[0] if row else 0
