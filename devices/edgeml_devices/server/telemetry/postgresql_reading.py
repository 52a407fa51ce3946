"""Reads telemetry from PostgreSQL; each question sees one moment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, NamedTuple

from edgeml_devices.server.telemetry import coverages, streams
from edgeml_devices.server.telemetry.packing import unpack_samples, unpack_system, unpack_window
from edgeml_devices.server.telemetry.selecting import DAY_US, bounds_us
from edgeml_devices.server.telemetry.store import Coverage, SampleRow, Selection, SystemRow, WindowRow

PIECE: Final = 1000
_FROM: Final = """
    FROM telemetry.part p JOIN telemetry.stream s ON s.device_id = p.device_id AND s.id = p.stream
    JOIN telemetry.boot b ON b.device_id = p.device_id AND b.id = p.boot
    LEFT JOIN telemetry.series n ON n.id = p.series"""


class _Asked(NamedTuple):
    where: str
    values: list[Any]


def _asked(selection: Selection, *, models: bool, kept_us: int) -> _Asked:
    since, until = bounds_us(selection)
    values: list[Any] = [max(since, kept_us), until]
    terms = ["p.at > $1", "p.at <= $2", "p.series IS NOT NULL" if models else "p.place = 0"]
    if selection.devices is not None:
        values.append(sorted(selection.devices))
        terms.append(f"p.device_id = ANY(${len(values)}::text[])")
    for column, value in (
        ("b.target", selection.target),
        ("n.model", selection.model),
        ("n.release", selection.release),
        ("n.variant", selection.variant),
    ):
        if value is not None and (models or column.startswith("b")):
            values.append(value)
            terms.append(f"{column} = ${len(values)}")
    return _Asked(f"WHERE {' AND '.join(terms)}", values)


@asynccontextmanager
async def snapshot(pool: Any) -> AsyncIterator[Any]:
    """Give a connection that sees one moment."""
    async with (
        pool.acquire() as connection,
        connection.transaction(isolation="repeatable_read", readonly=True),
    ):
        yield connection


async def _texts(connection: Any) -> dict[int, str]:
    return {row[0]: row[1] for row in await connection.fetch("SELECT id, text FROM telemetry.name")}


async def _pieces(connection: Any, query: str, asked: _Asked) -> AsyncIterator[list[Any]]:
    cursor = await connection.cursor(query, *asked.values)
    while rows := await cursor.fetch(PIECE):
        yield rows


async def windows(pool: Any, selection: Selection, kept_us: int) -> AsyncIterator[Sequence[WindowRow]]:
    """Give models' windows in pieces, in the order of (at, device)."""
    asked = _asked(selection, models=True, kept_us=kept_us)
    query = f"""SELECT p.at, p.device_id, p.duration, b.target, n.model, n.release, n.variant, n.runtime,
        n.reference, p.calls, p.total, p.body, p.samples {_FROM} {asked.where}
        ORDER BY p.at, p.device_id, s.epoch, p.last, p.place"""
    async with snapshot(pool) as connection:
        texts = await _texts(connection)
        async for rows in _pieces(connection, query, asked):
            yield await asyncio.to_thread(_windows, rows, texts)


def _windows(rows: list[Any], texts: dict[int, str]) -> list[WindowRow]:
    found = []
    for row in rows:
        at_us, device, duration, target, model, release, variant, runtime, reference, calls, *packed = row
        name, at = (model, release, variant, runtime, reference), at_us / 1e6
        total, body, samples = packed
        window = unpack_window(name, calls, total, body, samples, texts, at)
        found.append(WindowRow(at, duration / 1e6, device, target, window))
    return found


async def system(pool: Any, selection: Selection, kept_us: int) -> AsyncIterator[Sequence[SystemRow]]:
    """Give what the machines were like, in pieces, in the order of (at, device)."""
    asked = _asked(selection, models=False, kept_us=kept_us)
    query = f"""SELECT p.at, p.device_id, p.duration, b.target, coalesce(p.report_calls, 0), p.system
        {_FROM} {asked.where} ORDER BY p.at, p.device_id, s.epoch, p.last"""
    async with snapshot(pool) as connection:
        texts = await _texts(connection)
        async for rows in _pieces(connection, query, asked):
            found = []
            for at_us, device, duration, target, calls, packed in rows:
                facts, energy = unpack_system(packed, texts)
                found.append(SystemRow(at_us / 1e6, duration / 1e6, device, target, facts, energy, calls))
            yield found


async def samples(pool: Any, selection: Selection, limit: int, kept_us: int) -> list[SampleRow]:
    """Give the samples of the newest windows."""
    asked = _asked(selection, models=True, kept_us=kept_us)
    query = f"""SELECT p.at, p.device_id, n.model, n.release, n.variant, p.samples {_FROM} {asked.where}
        AND p.samples IS NOT NULL
        ORDER BY p.at DESC, p.device_id DESC, s.epoch DESC, p.last DESC, p.place DESC
        LIMIT {int(limit)}"""
    found: list[SampleRow] = []
    async with snapshot(pool) as connection:
        texts = await _texts(connection)
        for at_us, device, model, release, variant, packed in await connection.fetch(query, *asked.values):
            newest = reversed(unpack_samples(packed, texts, at_us / 1e6))
            found += [SampleRow(device, model, release, variant, sample) for sample in newest]
            if len(found) >= limit:
                break
    return found[:limit]


async def coverage(pool: Any, selection: Selection, kept_us: int) -> list[Coverage]:
    """Give what came, by device and day."""
    asked = _asked(selection, models=False, kept_us=kept_us)
    query = f"""SELECT p.device_id, (p.at - 1) / {DAY_US}, sum(coalesce(p.windows, 1)),
        coalesce(sum(p.merged), 0), coalesce(sum(p.evicted), 0), coalesce(sum(p.damaged), 0),
        coalesce(sum(p.overwritten), 0), sum(p.last - coalesce(p.first, p.last) + 1 - coalesce(p.windows, 1)),
        sum(least(p.duration, p.at - $1)), array_agg(DISTINCT b.boot_id), array_agg(DISTINCT s.epoch)
        {_FROM} {asked.where} GROUP BY 1, 2"""
    async with snapshot(pool) as connection:
        sums = [
            coverages.Sums._make((row[0], row[1], *map(int, row[2:9]), frozenset(row[9]), frozenset(row[10])))
            for row in await connection.fetch(query, *asked.values)
        ]
        devices = None if selection.devices is None else sorted(selection.devices)
        states = await connection.fetch(
            "SELECT device_id, state FROM telemetry.stream "
            "WHERE $1::text[] IS NULL OR device_id = ANY($1::text[])",
            devices,
        )
    gaps = [(device, gap) for device, state in states for gap in streams.from_bytes(state).gaps]
    return coverages.coverage(sums, gaps, asked.values[0], asked.values[1])
