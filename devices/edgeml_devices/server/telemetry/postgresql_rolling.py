"""Hourly sums in PostgreSQL: a report waits in ``unrolled`` until one process has added it, once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from edgeml_devices.server.telemetry import rolling
from edgeml_devices.server.telemetry.packing import pack_histogram
from edgeml_devices.server.telemetry.postgresql_reading import snapshot
from edgeml_devices.server.telemetry.rolling import ALL_TIME, FLEET, Fresh, Key, Piece, Sum
from edgeml_devices.server.telemetry.selecting import touched_hours
from edgeml_devices.server.telemetry.store import HourRow, Selection, TotalRow

_LOCK: Final = 0x65646765_686F7572
"""Advisory lock of the process that adds up ("edgehour")."""
_TOGETHER: Final = 4000
_UNROLLED: Final = "u.device_id, u.at, n.model, n.release, n.variant, u.target, u.calls, u.errors, u.total"


async def roll(pool: Any) -> bool:
    """Add some reports; say whether there are more. Nothing is done while another process does it."""
    async with pool.acquire() as connection, connection.transaction():
        if not await connection.fetchval("SELECT pg_try_advisory_xact_lock($1)", _LOCK):
            return False
        rows = await connection.fetch(
            f"DELETE FROM telemetry.unrolled u USING telemetry.series n "  # noqa: S608 - ours
            f"WHERE n.id = u.series AND u.ctid = ANY(ARRAY(SELECT ctid FROM telemetry.unrolled "
            f"LIMIT {_TOGETHER})) RETURNING {_UNROLLED}"
        )
        pieces, last_us = rolling.fresh(rows)
        if pieces:
            sums, all_time = rolling.sums_of(pieces)
            await _add_hours(connection, sums)
            await _add_totals(connection, all_time, last_us)
    return len(rows) == _TOGETHER


async def _add_hours(connection: Any, sums: dict[Key, Sum]) -> None:
    columns = list(zip(*((key.device_id, *key[:1], *key[2:]) for key in sums), strict=True))
    kept = await connection.fetch(
        "SELECT h.* FROM telemetry.hour h JOIN unnest($1::text[], $2::int[], $3::text[], $4::bigint[], "
        "$5::text[], $6::text[]) AS k(device_id, hour, model, release, variant, target) "
        "USING (device_id, hour, model, release, variant, target)",
        *map(list, columns),
    )
    sums = _with(sums, [_hour_piece(row) for row in kept])
    await connection.executemany(
        "INSERT INTO telemetry.hour VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) "
        "ON CONFLICT (device_id, hour, model, release, variant, target) DO UPDATE "
        "SET calls = excluded.calls, errors = excluded.errors, latency = excluded.latency",
        [
            (key.device_id, key.hour, *key[2:], one.calls, one.errors, pack_histogram(one.latency))
            for key, one in sums.items()
        ],
    )


async def _add_totals(connection: Any, sums: dict[Key, Sum], last_us: dict[Key, int]) -> None:
    for row in await connection.fetch("SELECT * FROM telemetry.total"):
        key = Key(ALL_TIME, FLEET, *row[:4])
        if key in sums:
            sums = _with(sums, [Piece(key, int(row[4]), int(row[5]), row[6])])
            last_us[key] = max(last_us[key], row[7])
    await connection.executemany(
        "INSERT INTO telemetry.total VALUES ($1, $2, $3, $4, $5, $6, $7, $8) "
        "ON CONFLICT (model, release, variant, target) DO UPDATE "
        "SET calls = excluded.calls, errors = excluded.errors, latency = excluded.latency, "
        "last = excluded.last",
        [
            (*key[2:], one.calls, one.errors, pack_histogram(one.latency), last_us[key])
            for key, one in sums.items()
        ],
    )


def _with(sums: dict[Key, Sum], kept: Iterable[Piece]) -> dict[Key, Sum]:
    return rolling.add_up([*kept, *rolling.pieces_of(sums)])


def _hour_piece(row: Any) -> Piece:
    device, hour, model, release, variant, target, calls, errors, latency = row
    return Piece(Key(hour, device, model, release, variant, target), int(calls), int(errors), latency)


async def _not_added(connection: Any) -> Fresh:
    return rolling.fresh(
        await connection.fetch(
            f"SELECT {_UNROLLED} FROM telemetry.unrolled u JOIN telemetry.series n ON n.id = u.series"  # noqa: S608 - ours
        )
    )


async def hours(pool: Any, selection: Selection, *, by_device: bool) -> list[HourRow]:
    """Give hourly sums, with what was not added yet."""
    first, end = touched_hours(selection)
    devices = None if selection.devices is None else sorted(selection.devices)
    if devices is None and not by_device:
        devices = [FLEET]
    # the fleet's sums are not a device's
    async with snapshot(pool) as connection:
        pieces, _ = await _not_added(connection)
        kept = await connection.fetch(
            "SELECT * FROM telemetry.hour WHERE hour >= $1 AND hour < $2 AND "
            "CASE WHEN $3::text[] IS NULL THEN device_id <> '' ELSE device_id = ANY($3::text[]) END",
            first,
            end,
            devices,
        )
    wanted = [
        piece
        for piece in (*pieces, *map(_hour_piece, kept))
        if first <= piece.key.hour < end and rolling.takes(selection, piece.key)
    ]
    if not by_device:
        wanted = [rolling.of_fleet(piece) for piece in wanted]
    return rolling.hour_rows(rolling.add_up(wanted))


async def totals(pool: Any) -> list[TotalRow]:
    """Give sums over all time."""
    async with snapshot(pool) as connection:
        pieces, last_us = await _not_added(connection)
        pieces = [rolling.of_all_time(piece) for piece in pieces]
        for row in await connection.fetch("SELECT * FROM telemetry.total"):
            key = Key(ALL_TIME, FLEET, *row[:4])
            pieces.append(Piece(key, int(row[4]), int(row[5]), row[6]))
            last_us[key] = max(row[7], last_us.get(key, 0))
    return rolling.total_rows(rolling.add_up(pieces), last_us)
