"""Hourly sums: how windows add up to them. Pure; exact in any order."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from edgeml.telemetry.exponential import ROLLUP_SCALE, ExponentialHistogram
from edgeml_devices.server.telemetry.packing import pack_histogram, packed_fields, unpack_histogram
from edgeml_devices.server.telemetry.selecting import hour_of, takes_series
from edgeml_devices.server.telemetry.store import HourRow, Selection, TotalRow

FLEET = ""
"""The ``device_id`` of sums over all devices."""
ALL_TIME = -1
"""The ``hour`` of sums over all time."""
_MOST = 2**64 - 1
"""A count stops here, which a real fleet's never reaches …"""
_MOST_CALLS = 2**63 - 1
"""… and calls here: a database's integer."""


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


class Fresh(NamedTuple):
    """What was stored and is in no sum yet."""

    pieces: list[Piece]
    """By device and hour."""
    last_us: dict[Key, int]
    """End of the newest window of each sum over all time."""


def fresh(rows: Iterable[Any]) -> Fresh:
    """Read windows: (device, at, model, release, variant, target, calls, errors, latency)."""
    pieces: list[Piece] = []
    last_us: dict[Key, int] = {}
    keys: dict[tuple[Any, ...], tuple[Key, Key]] = {}
    for device, at, model, release, variant, target, calls, errors, latency in rows:
        name = (hour_of(at), device, model, release, variant, target)
        both = keys.get(name)
        if both is None:
            both = keys[name] = Key(*name), Key(ALL_TIME, FLEET, *name[2:])
        key, of_all_time = both
        pieces.append(Piece(key, calls, errors, latency))
        last_us[of_all_time] = max(at, last_us.get(of_all_time, 0))
    return Fresh(pieces, last_us)


def takes(selection: Selection, key: Key) -> bool:
    """Say whether a sum is asked for, whatever its hour."""
    is_chosen = selection.devices is None or key.device_id in selection.devices
    return is_chosen and takes_series(selection, key.model, key.release, key.variant, key.target)


class _Growing:
    """A sum that pieces are added to, one by one, without a histogram for each."""

    __slots__ = ("calls", "errors", "found", "least", "most", "scale", "sum_nano", "zero")

    def __init__(self) -> None:
        self.calls = self.errors = self.zero = self.sum_nano = 0
        self.found: dict[int, int] = {}
        self.least, self.most = math.inf, -math.inf
        self.scale = ROLLUP_SCALE

    def add(self, calls: int, errors: int, latency: bytes | None) -> None:
        self.calls += calls
        self.errors += errors
        if latency is None:
            return
        offset, counts, zero, sum_nano, least, most, scale = packed_fields(latency)
        if scale < self.scale:
            self._coarsen(scale)
        found, shift = self.found, scale - self.scale
        for place, count in enumerate(counts, offset):
            if count:
                found[place >> shift] = found.get(place >> shift, 0) + count
        self.zero += zero
        self.sum_nano += sum_nano
        self.least, self.most = min(self.least, least), max(self.most, most)

    def _coarsen(self, scale: int) -> None:
        finer, self.found = self.found, {}
        for place, count in finer.items():
            coarse = place >> (self.scale - scale)
            self.found[coarse] = self.found.get(coarse, 0) + count
        self.scale = scale

    def sum(self) -> Sum:
        found, first = self.found, 0
        counts: tuple[int, ...] = ()
        if found:
            first = min(found)
            counts = tuple(min(_MOST, found.get(place, 0)) for place in range(first, max(found) + 1))
        latency = ExponentialHistogram(
            first, counts, min(_MOST, self.zero), self.sum_nano, self.least, self.most, self.scale
        )
        return Sum(min(_MOST_CALLS, self.calls), min(_MOST_CALLS, self.errors), latency)


def add_up(pieces: Iterable[Piece]) -> dict[Key, Sum]:
    """Add up pieces of the same key."""
    growing: dict[Key, _Growing | Piece] = {}
    for piece in pieces:
        key, calls, errors, latency = piece
        one = growing.get(key)
        if one is None:
            growing[key] = piece
            continue
        if isinstance(one, Piece):
            one = growing[key] = _grown(one)
        one.add(calls, errors, latency)
    return {key: _whole(one) if isinstance(one, Piece) else one.sum() for key, one in growing.items()}


def _grown(piece: Piece) -> _Growing:
    one = _Growing()
    one.add(piece.calls, piece.errors, piece.latency)
    return one


def _whole(piece: Piece) -> Sum:
    """Give the sum of one piece: most hours of most devices, which need no adding."""
    if piece.latency is not None:
        latency = unpack_histogram(piece.latency)
        if latency.scale == ROLLUP_SCALE:
            return Sum(piece.calls, piece.errors, latency)
    return _grown(piece).sum()


def sums_of(pieces: Iterable[Piece]) -> tuple[dict[Key, Sum], dict[Key, Sum]]:
    """Add up by hour, devices' and the fleet's; and over all time."""
    hours = add_up(pieces)
    by_device = pieces_of(hours)
    return hours | add_up(map(of_fleet, by_device)), add_up(map(of_all_time, by_device))


def pieces_of(sums: Mapping[Key, Sum]) -> list[Piece]:
    """Give sums as parts of larger ones."""
    return [Piece(key, one.calls, one.errors, pack_histogram(one.latency)) for key, one in sums.items()]


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
