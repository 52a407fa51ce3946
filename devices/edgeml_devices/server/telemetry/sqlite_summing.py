"""Reads hourly sums and sums over all time, with the reports that were not added to them yet."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from edgeml_devices.server.telemetry import day_files, rolling
from edgeml_devices.server.telemetry.rolling import ALL_TIME, FLEET, Fresh, Key, Piece
from edgeml_devices.server.telemetry.selecting import takes_series, touched_hours
from edgeml_devices.server.telemetry.sqlite_rolling import closed_days, not_added
from edgeml_devices.server.telemetry.store import HourRow, Selection, TotalRow


def hours(folder: Path, selection: Selection, *, by_device: bool) -> list[HourRow]:
    """Give hourly sums."""
    first, end = touched_hours(selection)
    with ExitStack() as stack:
        catalogue = _catalogue(stack, folder)
        pieces = [
            piece
            for several, _ in _not_added(stack, folder, catalogue)
            for piece in several
            if first <= piece.key.hour < end and rolling.takes(selection, piece.key)
        ]
        kept_fleet = not by_device and selection.devices is None
        pieces += _kept(catalogue, selection, first, end, fleet=kept_fleet)
    if not by_device:
        pieces = [rolling.of_fleet(piece) for piece in pieces]
    return rolling.hour_rows(rolling.add_up(pieces))


def totals(folder: Path) -> list[TotalRow]:
    """Give sums over all time."""
    pieces: list[Piece] = []
    last_us: dict[Key, int] = {}
    with ExitStack() as stack:
        catalogue = _catalogue(stack, folder)
        for several, last in _not_added(stack, folder, catalogue):
            pieces += map(rolling.of_all_time, several)
            last_us |= {key: max(at, last_us.get(key, 0)) for key, at in last.items()}
        series = {place: name for place, *name in catalogue.execute("SELECT * FROM series").fetchall()}
        for place, calls, errors, latency, at in catalogue.execute("SELECT * FROM total"):
            key = Key(ALL_TIME, FLEET, *series[place])
            pieces.append(Piece(key, calls, errors, latency))
            last_us[key] = max(at, last_us.get(key, 0))
    return rolling.total_rows(rolling.add_up(pieces), last_us)


def _catalogue(stack: ExitStack, folder: Path) -> sqlite3.Connection:
    catalogue = stack.enter_context(closing(day_files.connect_reader(folder / day_files.CATALOGUE)))
    catalogue.execute("BEGIN")
    return catalogue


def _not_added(stack: ExitStack, folder: Path, catalogue: sqlite3.Connection) -> Iterator[Fresh]:
    # what was added is read first: a report that is stored meanwhile is then among the others
    closed = closed_days(catalogue)
    done = dict(catalogue.execute("SELECT day, report FROM rolled").fetchall())
    for day in day_files.days_of(folder):
        if day in closed:
            continue
        reader = day_files.open_made(folder, day)
        if reader is not None:
            stack.enter_context(closing(reader))
            yield not_added(reader, done.get(day, 0))


def _kept(
    catalogue: sqlite3.Connection, selection: Selection, first: int, end: int, *, fleet: bool
) -> Iterator[Piece]:
    series: dict[int, Any] = {
        place: name
        for place, *name in catalogue.execute("SELECT * FROM series").fetchall()
        if takes_series(selection, *name)
    }
    devices: dict[int, str] = {0: FLEET}
    where, values = "device = 0", []
    if not fleet:
        devices |= dict(catalogue.execute("SELECT id, device FROM device").fetchall())
        where = "device <> 0"
    if not fleet and selection.devices is not None:
        where = "device IN (SELECT d.id FROM device d JOIN json_each(?) j ON j.value = d.device)"
        values = [json.dumps(sorted(selection.devices))]
    rows = catalogue.execute(
        f"SELECT * FROM hour WHERE hour >= ? AND hour < ? AND {where}",  # noqa: S608 - ours
        (first, end, *values),
    )
    for hour, device, place, calls, errors, latency in rows:
        if place in series:
            yield Piece(Key(hour, devices[device], *series[place]), calls, errors, latency)
