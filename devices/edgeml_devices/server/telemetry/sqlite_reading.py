"""Reads day files: each question on connections of its own, while the writer goes on."""

from __future__ import annotations

import heapq
import json
import sqlite3
from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing
from itertools import islice
from pathlib import Path
from typing import Any, Final, NamedTuple

from edgeml_devices.server.telemetry import coverages, day_files, streams
from edgeml_devices.server.telemetry.dating import AHEAD_S
from edgeml_devices.server.telemetry.day_files import FROM_MODEL, FROM_REPORT
from edgeml_devices.server.telemetry.packing import unpack_samples, unpack_system, unpack_window
from edgeml_devices.server.telemetry.selecting import DAY_US, bounds_us
from edgeml_devices.server.telemetry.store import Coverage, SampleRow, Selection, SystemRow, WindowRow

PIECE: Final = 1000
"""Rows that are given at a time."""


class _Asked(NamedTuple):
    where: str
    values: tuple[Any, ...]
    since_us: int
    until_us: int


def _asked(selection: Selection, *, models: bool, kept_us: int) -> _Asked:
    since, until = bounds_us(selection)
    first = max(since, kept_us)
    terms: list[str] = ["r.at > ? AND r.at <= ?"]
    values: list[Any] = [first, until]
    if selection.devices is not None:
        terms.append("s.device IN (SELECT value FROM json_each(?))")
        values.append(json.dumps(sorted(selection.devices)))
    for column, value in (
        ("b.target", selection.target),
        ("n.model", selection.model),
        ("n.release", selection.release),
        ("n.variant", selection.variant),
    ):
        if value is not None and (models or column.startswith("b")):
            terms.append(f"{column} = ?")
            values.append(value)
    return _Asked(f"WHERE {' AND '.join(terms)}", tuple(values), first, until)


class _Day:
    """One day file, open to read."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self.texts: dict[int, str] = {}
        self.series: dict[int, tuple[Any, ...]] = {}

    def look_up(self) -> None:
        """Read what rows refer to: after the first of them was read, so that it is there."""
        self.texts = dict(self.connection.execute("SELECT id, text FROM name").fetchall())
        rows = self.connection.execute("SELECT * FROM series").fetchall()
        self.series = {place: tuple(name) for place, *name in rows}


def open_days(stack: ExitStack, folder: Path, since_us: int) -> list[_Day]:
    """Open the files that may hold windows after a moment, each as it is now."""
    oldest = day_files.day_of(max(0.0, since_us / 1e6 - AHEAD_S))
    found = []
    for day in day_files.days_of(folder):
        if day >= oldest and (opened := day_files.open_made(folder, day)) is not None:
            stack.enter_context(closing(opened))
            opened.execute("BEGIN")
            one = _Day(opened)
            one.look_up()
            found.append(one)
    return found


def windows(folder: Path, selection: Selection, kept_us: int) -> Generator[list[WindowRow]]:
    """Give models' windows in pieces, in the order of (at, device)."""
    asked = _asked(selection, models=True, kept_us=kept_us)
    query = f"""SELECT r.at, s.device, s.epoch, r.last, m.id, r.duration, b.target, m.series, m.calls,
        m.total, m.body, m.samples {FROM_MODEL} {asked.where}
        ORDER BY r.at, s.device, s.epoch, r.last, m.id"""
    with ExitStack() as stack:
        days = open_days(stack, folder, asked.since_us)
        rows = heapq.merge(*(_rows(day, query, asked) for day in days), key=lambda row: row[1][:5])
        while piece := list(islice(rows, PIECE)):
            yield [_window(day, row) for day, row in piece]


def _rows(day: _Day, query: str, asked: _Asked) -> Iterator[tuple[_Day, Any]]:
    for row in day.connection.execute(query, asked.values):
        yield day, row


def _window(day: _Day, row: Any) -> WindowRow:
    at_us, device, _, _, _, duration, target, series, calls, total, body, samples = row
    at = at_us / 1e6
    name: Any = day.series[series]
    window = unpack_window(name, calls, total, body, samples, day.texts, at)
    return WindowRow(at, duration / 1e6, device, target, window)


def system(folder: Path, selection: Selection, kept_us: int) -> Generator[list[SystemRow]]:
    """Give what the machines were like, in pieces, in the order of (at, device)."""
    asked = _asked(selection, models=False, kept_us=kept_us)
    query = f"""SELECT r.at, s.device, s.epoch, r.last, r.duration, b.target, r.calls, r.system {FROM_REPORT}
        {asked.where} ORDER BY r.at, s.device, s.epoch, r.last"""
    with ExitStack() as stack:
        days = open_days(stack, folder, asked.since_us)
        rows = heapq.merge(*(_rows(day, query, asked) for day in days), key=lambda row: row[1][:4])
        while piece := list(islice(rows, PIECE)):
            found = []
            for day, (at_us, device, _, _, duration, target, calls, packed) in piece:
                facts, energy = unpack_system(packed, day.texts)
                found.append(SystemRow(at_us / 1e6, duration / 1e6, device, target, facts, energy, calls))
            yield found


def samples(folder: Path, selection: Selection, limit: int, kept_us: int) -> list[SampleRow]:
    """Give the samples of the newest windows."""
    asked = _asked(selection, models=True, kept_us=kept_us)
    query = f"""SELECT r.at, s.device, s.epoch, r.last, m.id, m.series, m.samples {FROM_MODEL} {asked.where}
        AND m.samples IS NOT NULL
        ORDER BY r.at DESC, s.device DESC, s.epoch DESC, r.last DESC, m.id DESC"""
    found: list[SampleRow] = []
    with ExitStack() as stack:
        days = open_days(stack, folder, asked.since_us)
        rows = heapq.merge(
            *(_rows(day, query, asked) for day in days), key=lambda row: row[1][:5], reverse=True
        )
        for day, (at_us, device, _, _, _, series, packed) in rows:
            model, release, variant, *_ = day.series[series]
            newest = reversed(unpack_samples(packed, day.texts, at_us / 1e6))
            found += [SampleRow(device, model, release, variant, sample) for sample in newest]
            if len(found) >= limit:
                break
    return found[:limit]


def coverage(folder: Path, selection: Selection, kept_us: int) -> list[Coverage]:
    """Give what came, by device and day."""
    asked = _asked(selection, models=False, kept_us=kept_us)
    # sum() ends the question where a number leaves 64 bits; total() is as exact up to 2**53
    query = f"""SELECT s.device, (r.at - 1) / {DAY_US}, total(r.windows), total(r.merged),
        total(r.evicted), total(r.damaged), total(r.overwritten), total(r.last - r.first + 1 - r.windows),
        total(min(r.duration, r.at - {asked.since_us})),
        json_group_array(DISTINCT b.boot_id), json_group_array(DISTINCT s.epoch)
        {FROM_REPORT} {asked.where} GROUP BY 1, 2"""
    sums: list[coverages.Sums] = []
    gaps: list[tuple[str, streams.Gap]] = []
    with ExitStack() as stack:
        days = open_days(stack, folder, asked.since_us)
        for day in days:
            for row in day.connection.execute(query, asked.values):
                figures = map(int, row[1:-2])
                boots, epochs = (frozenset(json.loads(text)) for text in row[-2:])
                sums.append(coverages.Sums._make((row[0], *figures, boots, epochs)))
        if days:
            for device, state in days[-1].connection.execute("SELECT device, state FROM stream"):
                if selection.devices is None or device in selection.devices:
                    gaps += [(device, gap) for gap in streams.from_bytes(state).gaps]
    return coverages.coverage(sums, gaps, asked.since_us, asked.until_us)
