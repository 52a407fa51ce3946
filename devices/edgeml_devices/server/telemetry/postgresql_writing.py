"""Writes reports to PostgreSQL: one transaction of COPY, with the streams' rows locked, from any process."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import groupby
from typing import Any, Final

import asyncpg

from edgeml_devices.server.telemetry import streams
from edgeml_devices.server.telemetry.packing import (
    TOTAL,
    Codes,
    pack_histogram,
    pack_samples,
    pack_system,
    pack_window,
    texts_of,
)
from edgeml_devices.server.telemetry.postgresql_schema import make_days
from edgeml_devices.server.telemetry.selecting import DAY_US, microseconds
from edgeml_devices.server.telemetry.store import Incoming, Stored, Verdict
from edgeml_devices.server.telemetry.streams import Stream, window_of

MOST_NAMES: Final = 4096
_MOST_BOOTS: Final = 100_000
"""That a process remembers."""
_PART: Final = [
    "at",
    "last",
    "duration",
    "stream",
    "boot",
    "series",
    "place",
    "device_id",
    "first",
    "link",
    "windows",
    "report_calls",
    "merged",
    "evicted",
    "damaged",
    "overwritten",
    "calls",
    "errors",
    "total",
    "body",
    "samples",
    "system",
]
_UNROLLED: Final = ("device_id", "at", "series", "target", "calls", "errors", "total")
Key = tuple[str, str]


class Writer:
    """Appends for one process; what it knows of numbers is what was committed."""

    def __init__(self) -> None:
        self._days: set[int] = set()
        self._series: dict[Any, int] = {}
        self._names = Codes()
        self._boots: dict[Any, int] = {}
        self._known: set[Key] = set()

    async def append(self, connection: Any, incoming: Sequence[Incoming]) -> list[Stored]:
        """Store what is new, in one commit."""
        await self._prepare(connection, incoming)
        try:
            return await self._append(connection, incoming)
        except (asyncpg.CheckViolationError, asyncpg.UndefinedTableError):
            # another process dropped a day a moment ago
            self._days.clear()
            await self._prepare(connection, incoming)
            return await self._append(connection, incoming)

    async def _append(self, connection: Any, incoming: Sequence[Incoming]) -> list[Stored]:
        stored: list[Stored] = []
        touched: dict[Key, tuple[int, Stream]] = {}
        new: list[tuple[int, Incoming]] = []
        async with connection.transaction():
            known = await _locked(connection, {(one.device_id, one.epoch) for one in incoming})
            for key, group in groupby(incoming, key=lambda one: (one.device_id, one.epoch)):
                request = list(group)
                windows = [window_of(one) for one in request]
                place, before = touched.get(key) or known.get(key) or (0, Stream())
                doubtful = streams.doubtful(before, windows)
                same = await _stored_before(connection, place, request, doubtful)
                result = streams.receive(before, windows, same) if place else streams.refused(windows)
                gaps = streams.shown_gaps(result.stream)
                stored += [Stored(verdict, result.acked_through, gaps) for verdict in result.verdicts]
                if Verdict.STORED in result.verdicts:
                    touched[key] = (place, result.stream)
                    judged = zip(request, result.verdicts, strict=True)
                    new += [(place, one) for one, verdict in judged if verdict is Verdict.STORED]
            if new:
                await self._insert(connection, new)
                await _update(connection, touched)
        return stored

    async def _insert(self, connection: Any, new: Sequence[tuple[int, Incoming]]) -> None:
        # thousands of reports are packed elsewhere, so that polls do not wait for it
        packed = await asyncio.to_thread(lambda: [self._rows(stream, one) for stream, one in new])
        parts = [row for rows, _ in packed for row in rows]
        unrolled = [row for _, rows in packed for row in rows]
        await connection.copy_records_to_table("part", schema_name="telemetry", columns=_PART, records=parts)
        if unrolled:
            await connection.copy_records_to_table(
                "unrolled", schema_name="telemetry", columns=_UNROLLED, records=unrolled
            )

    def _rows(self, stream: int, one: Incoming) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
        report, lost = one.report, one.report.lost
        at_us = microseconds(one.at)
        boot = self._boots[one.device_id, report.boot_id, one.target]
        begin = (at_us, report.seq, microseconds(report.end_s - report.start_s), stream, boot)
        of_report = (
            None if report.first == report.seq else report.first,
            streams.link_number(report.link),
            None if report.windows == 1 else report.windows,
            sum(window.calls for window in report.models) or None,
            lost.merged or None,
            lost.evicted or None,
            lost.damaged or None,
            lost.overwritten or None,
        )
        system = pack_system(report, self._names)
        rows: list[tuple[Any, ...]] = []
        sums: list[tuple[Any, ...]] = []
        for place, window in enumerate(report.models):
            series = self._series[_name(window)]
            latency = window.latency.get(TOTAL)
            total = None if latency is None else pack_histogram(latency)
            errors = sum(window.errors.values())
            row = (
                window.calls,
                errors,
                total,
                pack_window(window, self._names),
                pack_samples(window.samples, self._names, report.at),
            )
            rows.append(
                (
                    *begin,
                    series,
                    place,
                    one.device_id,
                    *((None,) * 8 if place else of_report),
                    *row,
                    None if place else system,
                )
            )
            sums.append((one.device_id, at_us, series, one.target, window.calls, errors, total))
        if not rows:
            rows.append((*begin, None, 0, one.device_id, *of_report, *(None,) * 5, system))
        return rows, sums

    # --- what rows refer to is committed before them, so that all processes see the same numbers

    async def _prepare(self, connection: Any, incoming: Sequence[Incoming]) -> None:
        days = {microseconds(one.at) // DAY_US for one in incoming} - self._days
        if days:
            await make_days(connection, days)
            self._days |= days
        if len(self._boots) > _MOST_BOOTS:
            self._boots.clear()
            self._known.clear()
        new_streams = {(one.device_id, one.epoch) for one in incoming} - self._known
        if new_streams:
            await connection.executemany(
                "INSERT INTO telemetry.stream (device_id, epoch, state) SELECT $1::text, $2::text, $3::bytea "
                "WHERE (SELECT count(*) FROM telemetry.stream WHERE device_id = $1::text) < $4 "
                "ON CONFLICT DO NOTHING",
                [(*key, streams.to_bytes(Stream()), streams.MOST_EPOCHS) for key in sorted(new_streams)],
            )
            self._known |= new_streams
        boots = {(one.device_id, one.report.boot_id, one.target) for one in incoming}
        await _number(connection, "boot", ("device_id", "boot_id", "target"), self._boots, boots)
        series = {_name(window) for one in incoming for window in one.report.models}
        columns = ("model", "release", "variant", "runtime", "reference")
        await _number(connection, "series", columns, self._series, series)
        texts = set[str]().union(*(texts_of(one.report) for one in incoming)) - self._names.keys()
        few = sorted(texts)[: max(0, MOST_NAMES - len(self._names))]
        await _number(connection, "name", ("text",), self._names, {(text,) for text in few})


def _name(window: Any) -> tuple[Any, ...]:
    return (window.model, window.release, window.variant, window.runtime, window.reference)


async def _number(
    connection: Any, table: str, columns: Sequence[str], known: dict[Any, int], wanted: set[Any]
) -> None:
    """Learn numbers that are not known here, and give one to what has none."""
    for values in sorted(wanted):
        key = values if len(values) > 1 else values[0]
        if key in known:
            continue
        marks = ", ".join(f"${place}" for place in range(1, len(columns) + 1))
        where = " AND ".join(f"{column} = ${place}" for place, column in enumerate(columns, 1))
        find = f"SELECT id FROM telemetry.{table} WHERE {where}"  # noqa: S608 - our own names
        found = await connection.fetchval(find, *values)
        if found is None:
            await connection.execute(
                f"INSERT INTO telemetry.{table} ({', '.join(columns)}) VALUES ({marks}) "  # noqa: S608 - as above
                "ON CONFLICT DO NOTHING",
                *values,
            )
            found = await connection.fetchval(find, *values)
        known[key] = found


async def _locked(connection: Any, keys: set[Key]) -> dict[Key, tuple[int, Stream]]:
    """Lock streams, always in the same order, so that no two processes wait for each other."""
    ordered = sorted(keys)
    rows = await connection.fetch(
        "SELECT s.device_id, s.epoch, s.id, s.state FROM telemetry.stream s "
        "JOIN unnest($1::text[], $2::text[]) AS k(device_id, epoch) "
        "ON s.device_id = k.device_id AND s.epoch = k.epoch "
        "ORDER BY s.device_id, s.epoch FOR UPDATE OF s",
        [key[0] for key in ordered],
        [key[1] for key in ordered],
    )
    return {(row[0], row[1]): (row[2], streams.from_bytes(row[3])) for row in rows}


async def _stored_before(
    connection: Any, stream: int, request: Sequence[Incoming], places: Sequence[int]
) -> set[int]:
    """Give those places of a request whose rows are there, up to the first that has none."""
    found: set[int] = set()
    for place in places:
        if not await _is_stored(connection, stream, request[place]):
            break
        found.add(place)
    return found


async def _is_stored(connection: Any, stream: int, one: Incoming) -> bool:
    return bool(
        await connection.fetchval(
            "SELECT EXISTS (SELECT FROM telemetry.part WHERE device_id = $1 AND stream = $2 AND at = $3 "
            "AND last = $4 AND coalesce(first, last) = $5 AND link = $6 AND place = 0)",
            one.device_id,
            stream,
            *streams.identity_of(one),
        )
    )


async def _update(connection: Any, touched: dict[Key, tuple[int, Stream]]) -> None:
    await connection.execute(
        "UPDATE telemetry.stream s SET state = k.state "
        "FROM unnest($1::text[], $2::text[], $3::bytea[]) AS k(device_id, epoch, state) "
        "WHERE s.device_id = k.device_id AND s.epoch = k.epoch",
        [key[0] for key in touched],
        [key[1] for key in touched],
        [streams.to_bytes(after) for _, after in touched.values()],
    )
