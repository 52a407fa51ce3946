"""Keeps hourly sums of the SQLite store: each report is added once, as the sums say which they hold."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, Final

from edgeml_devices.server.telemetry import day_files, rolling
from edgeml_devices.server.telemetry.packing import pack_histogram
from edgeml_devices.server.telemetry.rolling import FLEET, Key, Piece, Sum
from edgeml_devices.server.telemetry.selecting import hour_of, takes_series, whole_hours
from edgeml_devices.server.telemetry.store import HourRow, Selection

_TOGETHER: Final = 4000
"""Reports that are added in one transaction."""
_NEW: Final = f"""SELECT r.id, r.at, s.device, n.model, n.release, n.variant, b.target, m.calls, m.errors, m.total
    FROM report r CROSS JOIN boot b ON b.id = r.boot CROSS JOIN stream s ON s.id = b.stream
    CROSS JOIN model m ON m.id BETWEEN r.id * {day_files.MODELS} AND r.id * {day_files.MODELS} + {day_files.MODELS - 1}
    CROSS JOIN series n ON n.id = m.series
    WHERE r.id > ? AND r.id <= ?"""


class Roller:
    """Adds reports to hourly sums. All methods are called from one thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._catalogue = day_files.open_catalogue(folder)

    def roll(self) -> bool:
        """Add some reports; say whether there are more."""
        for day in day_files.days_of(self._folder):
            reader = day_files.open_made(self._folder, day)
            if reader is not None:
                with closing(reader):
                    if count := self._roll_day(reader, day):
                        return count == _TOGETHER
        return False

    def _roll_day(self, reader: sqlite3.Connection, day: str) -> int:
        done = rolled(self._catalogue, day)
        newest = reader.execute("SELECT coalesce(max(id), 0) FROM report").fetchone()[0]
        until = min(newest, done + _TOGETHER)
        if until <= done:
            return 0
        pieces = [piece for _, piece in _pieces(reader, done, until)]
        sums = rolling.add_up([*pieces, *map(rolling.of_fleet, pieces)])
        with _immediate(self._catalogue) as catalogue:
            places = _Places(catalogue)
            for key, one in sums.items():
                _add(catalogue, places.of(key), key, one)
            catalogue.execute("INSERT OR REPLACE INTO rolled VALUES (?, ?)", (day, until))
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
            "INSERT INTO kept VALUES ('windows', ?) ON CONFLICT DO UPDATE SET since = max(since, excluded.since)",
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


def _pieces(reader: sqlite3.Connection, after: int, until: int) -> Iterator[tuple[int, Piece]]:
    for place, at, device, model, release, variant, target, calls, errors, total in reader.execute(
        _NEW, (after, until)
    ):
        yield place, Piece(Key(hour_of(at), device, model, release, variant, target), calls, errors, total)


def rolled(catalogue: sqlite3.Connection, day: str) -> int:
    """Give the newest report of a day that the sums hold."""
    row = catalogue.execute("SELECT report FROM rolled WHERE day = ?", (day,)).fetchone()
    return row[0] if row else 0


# --- reading


def hours(folder: Path, selection: Selection, *, fleet: bool) -> list[HourRow]:
    """Give the sums of whole hours, with what was not added yet."""
    first, end = whole_hours(selection)
    pieces: list[Piece] = []
    with ExitStack() as stack:
        catalogue = stack.enter_context(closing(day_files.connect_reader(folder / day_files.CATALOGUE)))
        catalogue.execute("BEGIN")
        done = dict(catalogue.execute("SELECT day, report FROM rolled").fetchall())
        for day in day_files.days_of(folder):
            reader = day_files.open_made(folder, day)
            if reader is not None:
                stack.enter_context(closing(reader))
                for _, piece in _pieces(reader, done.get(day, 0), 2**62):
                    if first <= piece.key.hour < end and _takes(selection, piece.key):
                        pieces.append(rolling.of_fleet(piece) if fleet else piece)
        pieces += _kept(catalogue, selection, first, end, fleet=fleet)
    return rolling.hour_rows(rolling.add_up(pieces))


def _takes(selection: Selection, key: Key) -> bool:
    if selection.devices is not None and key.device_id not in selection.devices:
        return False
    return takes_series(selection, key.model, key.release, key.variant, key.target)


def _kept(
    catalogue: sqlite3.Connection, selection: Selection, first: int, end: int, *, fleet: bool
) -> Iterator[Piece]:
    series = {
        place: tuple(name)
        for place, *name in catalogue.execute("SELECT * FROM series").fetchall()
        if takes_series(selection, *name)
    }
    query, values = "device <> 0", []
    if fleet:
        query = "device = 0"
    elif selection.devices is not None:
        query = "device IN (SELECT d.id FROM device d JOIN json_each(?) j ON j.value = d.device)"
        values = [json.dumps(sorted(selection.devices))]
    devices: dict[int, str] = {0: FLEET}
    if not fleet:
        devices |= dict(catalogue.execute("SELECT id, device FROM device").fetchall())
    rows = catalogue.execute(
        f"SELECT * FROM hour WHERE hour >= ? AND hour < ? AND {query}",  # noqa: S608 - ours
        (first, end, *values),
    )
    for hour, device, place, calls, errors, latency in rows:
        if place in series:
            model, release, variant, target = series[place]
            key = Key(hour, devices[device], model, release, variant, target)
            yield Piece(key, calls, errors, latency)
