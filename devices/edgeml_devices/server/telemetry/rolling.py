"""Hourly sums: how windows add up to them. Pure; exact in any order."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from edgeml.telemetry.exponential import ROLLUP_SCALE, ExponentialHistogram, merge
from edgeml_devices.server.telemetry.packing import unpack_histogram
from edgeml_devices.server.telemetry.store import HourRow, TotalRow

FLEET = ""
"""The ``device_id`` of sums over all devices."""
ALL_TIME = -1
"""The ``hour`` of sums over all time."""
_MOST = 2**64 - 1
"""A count stops here, which a real fleet's never reaches."""


class Key(NamedTuple):
    """What one hourly sum is of. Rows are given in this order."""

    hour: int
    device_id: str
    model: str
    release: int
    variant: str
    target: str


class Piece(NamedTuple):
    """A part of a sum."""

    key: Key
    calls: int
    errors: int
    latency: bytes | None


@dataclass(frozen=True, slots=True)
class Sum:
    """An hour's sum."""

    calls: int
    errors: int
    latency: ExponentialHistogram


def add_up(pieces: Iterable[Piece]) -> dict[Key, Sum]:
    """Add up pieces of the same key."""
    parts: dict[Key, list[Piece]] = {}
    for piece in pieces:
        parts.setdefault(piece.key, []).append(piece)
    return {key: _sum(several) for key, several in parts.items()}


def _sum(pieces: list[Piece]) -> Sum:
    latency = merge(
        (unpack_histogram(one.latency) for one in pieces if one.latency is not None), ROLLUP_SCALE
    )
    return Sum(
        sum(one.calls for one in pieces),
        sum(one.errors for one in pieces),
        ExponentialHistogram(
            latency.offset,
            tuple(min(count, _MOST) for count in latency.counts),
            min(latency.zero, _MOST),
            latency.sum_nano,
            latency.min,
            latency.max,
            latency.scale,
        ),
    )


def total_rows(sums: dict[Key, Sum], last_us: dict[Key, int]) -> list[TotalRow]:
    """Give sums over all time, by model, release, variant and target."""
    return [
        TotalRow(
            key.target,
            key.model,
            key.release,
            key.variant,
            sums[key].calls,
            sums[key].errors,
            sums[key].latency,
            last_us[key] / 1e6,
        )
        for key in sorted(sums)
    ]


def of_all_time(piece: Piece) -> Piece:
    """Give the same as a part of the sum over all time."""
    return piece._replace(key=piece.key._replace(device_id=FLEET, hour=ALL_TIME))


def of_fleet(piece: Piece) -> Piece:
    """Give the same as a part of the fleet's sum."""
    return piece._replace(key=piece.key._replace(device_id=FLEET))


def hour_rows(sums: dict[Key, Sum]) -> list[HourRow]:
    """Give rows in the order of their keys."""
    return [
        HourRow(
            key.hour,
            key.device_id,
            key.target,
            key.model,
            key.release,
            key.variant,
            sums[key].calls,
            sums[key].errors,
            sums[key].latency,
        )
        for key in sorted(sums)
    ]
