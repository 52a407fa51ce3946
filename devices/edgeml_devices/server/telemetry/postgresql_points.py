"""Points of foreign agents in PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from edgeml_devices.server.telemetry.selecting import point_row
from edgeml_devices.server.telemetry.store import Point

_COLUMNS: Final = ("at", "device_id", "name", "unit", "kind", "temporality", "attributes", "value", "buckets")


async def append(connection: Any, points: Sequence[Point]) -> None:
    """Add points in one commit."""
    rows = [point_row(point) for point in points]
    await connection.copy_records_to_table("point", schema_name="telemetry", columns=_COLUMNS, records=rows)


async def read(connection: Any, name: str, since_us: int, until_us: int, limit: int) -> list[Point]:
    """Give the newest points of a name, the oldest first."""
    rows = await connection.fetch(
        "SELECT * FROM telemetry.point WHERE name = $1 AND at > $2 AND at <= $3 "
        "ORDER BY at DESC, device_id DESC, attributes DESC, value DESC LIMIT $4",
        name,
        since_us,
        until_us,
        limit,
    )
    return [Point(at / 1e6, *rest) for at, *rest in reversed(rows)]


async def prune(connection: Any, before_us: int) -> None:
    """Remove old points."""
    await connection.execute("DELETE FROM telemetry.point WHERE at <= $1", before_us)
