"""How moments, selections and points lie in databases: whole microseconds, whole hours."""

from __future__ import annotations

import math
from typing import Final

from edgeml_devices.server.telemetry.store import Point, Selection

HOUR_US: Final = 3_600_000_000
DAY_US: Final = 24 * HOUR_US


def microseconds(seconds: float) -> int:
    """Give a time as it is stored: exact, and the same in every database."""
    return round(seconds * 1e6)


def bounds_us(selection: Selection) -> tuple[int, int]:
    """Give since and until, µs; beyond what an integer column holds, as near as it can."""
    return _floor_us(selection.since), _floor_us(selection.until)


def _floor_us(seconds: float) -> int:
    return math.floor(max(-9e12, min(9e12, seconds)) * 1e6)


def hour_of(at_us: int) -> int:
    """Give the hour that a window counts in: it ends after the hour's beginning, and not after its end."""
    return (at_us - 1) // HOUR_US


def touched_hours(selection: Selection) -> tuple[int, int]:
    """Give the first hour that a selection touches, and the one after the last."""
    since, until = bounds_us(selection)
    return since // HOUR_US, -(-until // HOUR_US)


def takes_series(selection: Selection, model: str, release: int, variant: str, target: str) -> bool:
    """Say whether rows of this kind are asked for."""
    return (
        selection.model in {None, model}
        and selection.release in {None, release}
        and selection.variant in {None, variant}
        and selection.target in {None, target}
    )


def point_row(point: Point) -> tuple[object, ...]:
    """Give a point as it lies in tables."""
    return (
        microseconds(point.at),
        point.device_id,
        point.name,
        point.unit,
        point.kind,
        point.temporality,
        point.attributes,
        point.value,
        point.buckets,
    )
