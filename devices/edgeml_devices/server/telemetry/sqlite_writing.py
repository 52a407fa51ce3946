"""Writes reports to the newest day file: in one thread, each commit durable."""

from __future__ import annotations

import logging
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any, Final

from edgeml_devices.server.telemetry import day_files, streams
from edgeml_devices.server.telemetry.dating import AHEAD_S
from edgeml_devices.server.telemetry.packing import (
    TOTAL,
    Codes,
    pack_histogram,
    pack_samples,
    pack_system,
    pack_window,
)
from edgeml_devices.server.telemetry.selecting import microseconds
from edgeml_devices.server.telemetry.store import Incoming, Stored, Verdict
from edgeml_devices.server.telemetry.streams import Stream, identity_of, link_number, window_of
from edgeml_devices.server.telemetry.wire_types import MODELS

_LOG: Final = logging.getLogger(__name__)
MOST_NAMES: Final = 4096
"""That get a number in one file; further ones are spelt out each time."""


_THE_SAME: Final = """SELECT 1 FROM boot b CROSS JOIN report r ON r.boot = b.id WHERE b.stream = ?
    AND r.at = ? AND r.last = ? AND r.first = ? AND r.link = ?"""


class DayWriter:
    """The file that reports go to. All methods are called from one thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.day = ""
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None
        self._streams: dict[tuple[str, str], tuple[int, Stream]] = {}
        self._epochs: Counter[str] = Counter()
        self._boots: dict[tuple[int, str, str], int] = {}
        self._series: dict[tuple[Any, ...], int] = {}
        self._names = _Names()
        self._next = 1

    def append(self, incoming: Sequence[Incoming], day: str) -> list[Stored]:
        """Store what is new, in one commit. ``day`` is today: no earlier file is gone back to."""
        self.move_to(day)
        stored: list[Stored] = []
        touched: dict[tuple[str, str], tuple[int, Stream]] = {}
        with self._transaction() as connection:
            for key, group in groupby(incoming, key=lambda one: (one.device_id, one.epoch)):
                request = list(group)
                windows = [window_of(one) for one in request]
                place, before = touched.get(key) or self._stream(connection, key)
                known = self._stored_before(place, request, streams.doubtful(before, windows))
                result = streams.receive(before, windows, known) if place else streams.refused(windows)
                gaps = streams.shown_gaps(result.stream)
                stored += [Stored(verdict, result.acked_through, gaps) for verdict in result.verdicts]
                new = [
                    one
                    for one, verdict in zip(request, result.verdicts, strict=True)
                    if verdict is Verdict.STORED
                ]
                if new:
                    touched[key] = (place, result.stream)
                    self._insert(connection, place, new)
            connection.executemany(
                "UPDATE stream SET state = ? WHERE id = ?",
                [(streams.to_bytes(after), place) for place, after in touched.values()],
            )
        self._streams |= touched
        return stored

    def move_to(self, day: str) -> None:
        """Make today's file the one that is written, if it is not."""
        newest = max(day_files.days_of(self._folder), default="")
        day = max(day, newest, self.day)
        if day == self.day and self._connection is not None:
            if day_files.identity(self._folder, day) == self._identity:
                return
            # what would be committed now, nobody could read
            _LOG.error("the telemetry of %s was removed while it was written; it begins anew", day)
        self.close()
        self._connection = day_files.open_day(self._folder, day)
        self.day, self._identity = day, day_files.identity(self._folder, day)
        self._load(self._connection)

    def truncate_wal(self) -> None:
        """Write everything to the file itself, and give the log's space back."""
        if self._connection is not None:
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()

    def close(self) -> None:
        """Close the file."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    # ---

    def _load(self, connection: sqlite3.Connection) -> None:
        self._streams = {
            (device, epoch): (place, streams.from_bytes(state))
            for place, device, epoch, state in connection.execute("SELECT * FROM stream")
        }
        self._epochs = Counter(device for device, _ in self._streams)
        self._boots = {tuple(key): place for place, *key in connection.execute("SELECT * FROM boot")}
        self._series = {tuple(key): place for place, *key in connection.execute("SELECT * FROM series")}
        self._names = _Names(connection, connection.execute("SELECT text, id FROM name"))
        self._next = connection.execute("SELECT coalesce(max(id), 0) + 1 FROM report").fetchone()[0]

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        connection = self._connection
        if connection is None:
            raise RuntimeError("no day file is open")
        try:
            connection.execute("BEGIN IMMEDIATE")
            yield connection
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            # what is in memory may be ahead of the file: look again
            self.close()
            raise

    def _stream(self, connection: sqlite3.Connection, key: tuple[str, str]) -> tuple[int, Stream]:
        """Give the number and the state of a stream, a new one if need be; 0: the device has too many."""
        found = self._streams.get(key)
        if found is None:
            if self._epochs[key[0]] >= streams.MOST_EPOCHS:
                return 0, Stream()
            self._epochs[key[0]] += 1
            inserted = connection.execute(
                "INSERT INTO stream (device, epoch, state) VALUES (?, ?, ?)",
                (*key, streams.to_bytes(Stream())),
            )
            found = self._streams[key] = (inserted.lastrowid or 0, Stream())
        return found

    def _stored_before(self, stream: int, request: Sequence[Incoming], places: Sequence[int]) -> set[int]:
        """Give those places of a request whose rows are there, up to the first that has none.

        They came in the order of their numbers, so each file is looked at once.
        """
        first = min((day_files.day_of(request[place].at - AHEAD_S) for place in places), default="")
        count = 0
        for day in day_files.days_of(self._folder) if places else ():
            connection = day_files.open_made(self._folder, day) if day >= first else None
            if connection is None:
                continue
            with closing(connection):
                while count < len(places):
                    identity = identity_of(request[places[count]])
                    if connection.execute(_THE_SAME, (stream, *identity)).fetchone() is None:
                        break
                    count += 1
        return set(places[:count])

    def _insert(self, connection: sqlite3.Connection, stream: int, new: Sequence[Incoming]) -> None:
        names = self._names
        reports: list[tuple[Any, ...]] = []
        models: list[tuple[Any, ...]] = []
        for one in new:
            report, lost = one.report, one.report.lost
            boot = self._number(connection, self._boots, "boot", (stream, report.boot_id, one.target))
            reports.append(
                (
                    self._next,
                    microseconds(one.at),
                    boot,
                    report.begins,
                    report.seq,
                    link_number(report.link),
                    microseconds(report.end_s - report.start_s),
                    report.windows,
                    sum(window.calls for window in report.models),
                    lost.merged,
                    lost.evicted,
                    lost.damaged,
                    lost.overwritten,
                    pack_system(report, names),
                )
            )
            for place, window in enumerate(report.models):
                key = (window.model, window.release, window.variant, window.runtime, window.reference)
                total = window.latency.get(TOTAL)
                models.append(
                    (
                        self._next * MODELS + place,
                        self._number(connection, self._series, "series", key),
                        window.calls,
                        sum(window.errors.values()),
                        None if total is None else pack_histogram(total),
                        pack_window(window, names),
                        pack_samples(window.samples, names, report.at),
                    )
                )
            self._next += 1
        connection.executemany("INSERT INTO report VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?)", reports)
        connection.executemany("INSERT INTO model VALUES (?,?,?,?,?,?,?)", models)

    def _number(self, connection: sqlite3.Connection, known: dict[Any, int], table: str, key: Any) -> int:
        place = known.get(key)
        if place is None:
            values = key if isinstance(key, tuple) else (key,)
            marks = ", ?" * len(values)
            inserted = connection.execute(f"INSERT INTO {table} VALUES (NULL{marks})", values)  # noqa: S608 - ours
            place = known[key] = inserted.lastrowid or 0
        return place


class _Names(Codes):
    """Numbers of texts in a file; a new text gets one as it is met."""

    def __init__(
        self, connection: sqlite3.Connection | None = None, known: Iterable[tuple[str, int]] = ()
    ) -> None:
        super().__init__(known)
        self._connection = connection

    def __missing__(self, text: str) -> int | str:
        if self._connection is None or len(self) >= MOST_NAMES:
            return text
        inserted = self._connection.execute("INSERT INTO name VALUES (NULL, ?)", (text,))
        number = self[text] = inserted.lastrowid or 0
        return number
