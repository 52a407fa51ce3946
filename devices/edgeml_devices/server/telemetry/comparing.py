"""``compare``: one release against another on the same devices in the same hours.

A cell is what is held fixed: a device in an hour, by default. Only cells in which both releases ran count,
and within a cell both weigh alike, as much as the smaller side has calls; so neither a slower kind of machine
nor a busier hour stands on one side only. Devices are the units that chance chooses: intervals come from
drawing devices again (cluster bootstrap, Efron and Tibshirani 1993, ch. 8), percentiles 2.5 and 97.5.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import numpy as np

from edgeml.telemetry.exponential import ROLLUP_SCALE, ExponentialHistogram, merge
from edgeml_devices.server.telemetry.questions import Interval
from edgeml_devices.server.telemetry.store import HourRow, Selection, TelemetryStore

Pairing = Literal["device-hour", "device", "target-hour"]
FEWEST_DEVICES: Final = 5
"""With fewer, drawing devices again says nothing of the fleet: no interval is given."""
_DRAWS: Final = 2000
_SEED: Final = 20140
"""The same question gets the same answer."""
_Floats = np.ndarray[Any, np.dtype[np.float64]]
_NOTHING: Final = ExponentialHistogram(scale=ROLLUP_SCALE)
_LOWEST: Final = -300
_BUCKETS: Final = 600
"""At the rollups' scale: from 5e-12 s to 1.9e11 s."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """The newer release by the older one."""

    model: str
    release: int
    against: int
    pairing: Pairing
    devices: int
    cells: int
    calls: int
    """Of ``release`` in the cells."""
    calls_against: int
    ratios: dict[float, Interval | None]
    """Latency of ``release`` by that of ``against``, for each quantile; ``None``: nothing to compare."""
    error_rate: float | None
    error_rate_against: float | None
    error_difference: Interval | None
    """Error rate of ``release`` minus that of ``against``."""
    note: str = ""
    """What is missing, and what to ask instead."""


@dataclass(slots=True)
class _Side:
    calls: int = 0
    errors: int = 0
    latency: ExponentialHistogram = _NOTHING

    def add(self, row: HourRow) -> None:
        self.calls += row.calls
        self.errors += row.errors
        self.latency = merge((self.latency, row.latency), ROLLUP_SCALE)


@dataclass(slots=True)
class _Unit:
    """What the cells of one device sum up to, both sides at equal weight."""

    latency: _Floats
    """(2, buckets)"""
    calls: _Floats
    """(2,)"""
    errors: _Floats


async def compare(
    store: TelemetryStore,
    selection: Selection,
    *,
    model: str,
    release: int,
    against: int,
    quantiles: Sequence[float] = (0.5, 0.95),
    pairing: Pairing = "device-hour",
) -> Comparison:
    """Compare two releases of a model in a selection, whatever release that names."""
    both = replace(selection, model=model, release=None)
    rows = await store.hours(both, by_device=True)
    made = Comparison(model, release, against, pairing, 0, 0, 0, 0, {}, None, None, None)
    # many devices over a week are seconds of work: others are answered meanwhile
    return await asyncio.to_thread(_compared, made, rows, quantiles)


def _compared(made: Comparison, rows: Sequence[HourRow], quantiles: Sequence[float]) -> Comparison:
    cells: dict[tuple[str, int], dict[str, tuple[_Side, _Side]]] = {}
    for row in rows:
        if row.release in (made.release, made.against):
            cell = cells.setdefault(_cell(made.pairing, row), {})
            pair = cell.setdefault(row.device_id, (_Side(), _Side()))
            pair[0 if row.release == made.release else 1].add(row)
    matched = {key: cell for key, cell in cells.items() if all(_calls(cell))}
    units = _units(matched)
    ours, theirs = (sum(_calls(cell)[side] for cell in matched.values()) for side in (0, 1))
    counted = replace(made, devices=len(units), cells=len(matched), calls=ours, calls_against=theirs)
    return _judged(counted, list(units.values()), quantiles)


def _cell(pairing: Pairing, row: HourRow) -> tuple[str, int]:
    match pairing:
        case "device-hour":
            return row.device_id, row.hour
        case "device":
            return row.device_id, 0
        case "target-hour":
            return row.target, row.hour


def _calls(cell: dict[str, tuple[_Side, _Side]]) -> tuple[int, int]:
    return sum(pair[0].calls for pair in cell.values()), sum(pair[1].calls for pair in cell.values())


def _units(cells: dict[tuple[str, int], dict[str, tuple[_Side, _Side]]]) -> dict[str, _Unit]:
    units: dict[str, _Unit] = {}
    for cell in cells.values():
        calls = _calls(cell)
        shares = [min(calls) / one for one in calls]
        for device, pair in cell.items():
            if device not in units:
                units[device] = _Unit(np.zeros((2, _BUCKETS)), np.zeros(2), np.zeros(2))
            unit = units[device]
            for side, (one, share) in enumerate(zip(pair, shares, strict=True)):
                unit.latency[side] += share * _dense(one.latency)
                unit.calls[side] += share * one.calls
                unit.errors[side] += share * one.errors
    return units


def _dense(histogram: ExponentialHistogram) -> _Floats:
    dense = np.zeros(_BUCKETS)
    dense[0] = histogram.zero
    begin = histogram.offset - _LOWEST
    dense[begin : begin + len(histogram.counts)] = histogram.counts
    return dense


def _judged(made: Comparison, units: list[_Unit], quantiles: Sequence[float]) -> Comparison:
    if not units:
        note = f"no {made.pairing.replace('-', ' and ')} in which both releases ran"
        wider = {
            "device-hour": "; ask with pairing device or target-hour",
            "device": "; ask with pairing target-hour",
        }
        return replace(made, note=note + wider.get(made.pairing, ""), ratios=dict.fromkeys(quantiles))
    latency = np.stack([unit.latency for unit in units])
    calls = np.stack([unit.calls for unit in units])
    errors = np.stack([unit.errors for unit in units])
    draws = _weights(len(units))
    ratios = {q: _interval(_ratios(latency, draws, q)) for q in quantiles}
    with np.errstate(invalid="ignore", divide="ignore"):
        rates = (draws @ errors) / (draws @ calls)
    few = (
        ""
        if len(units) >= FEWEST_DEVICES
        else f"devices: {len(units)}, too few for an interval (from {FEWEST_DEVICES})"
    )
    return replace(
        made,
        ratios=ratios,
        error_rate=float(rates[0, 0]),
        error_rate_against=float(rates[0, 1]),
        error_difference=_interval(rates[:, 0] - rates[:, 1]),
        note=few,
    )


def _weights(units: int) -> _Floats:
    """Give how often each unit counts: as it is in the first row, in the others as drawn."""
    rows = [np.ones((1, units))]
    if units >= FEWEST_DEVICES:
        drawn = np.random.default_rng(_SEED).multinomial(units, np.full(units, 1 / units), _DRAWS)
        rows.append(drawn.astype(np.float64))
    return np.concatenate(rows)


def _ratios(latency: _Floats, draws: _Floats, q: float) -> _Floats:
    """Give the ratio of quantiles for each draw; latency is (units, 2, buckets), draws (draws, units)."""
    used = np.flatnonzero(latency.any((0, 1)))
    if not used.size:
        return np.full(len(draws), np.nan)
    first, last = int(used[0]), int(used[-1]) + 1
    own = np.einsum("du,usb->dsb", draws, latency[:, :, first:last], optimize=True)
    below = own.cumsum(2)
    total = below[:, :, -1:]
    place = (below < q * total - 1e-9).sum(2)
    inside = np.take_along_axis(own, np.minimum(place, last - first - 1)[..., None], 2)[..., 0]
    before = np.take_along_axis(below, np.minimum(place, last - first - 1)[..., None], 2)[..., 0] - inside
    with np.errstate(invalid="ignore", divide="ignore"):
        # within a bucket values lie evenly on the logarithmic scale
        exact = place + np.clip((q * total[..., 0] - before) / inside, 0, 1)
    doublings = (exact[:, 0] - exact[:, 1]) / (1 << ROLLUP_SCALE)
    ratios: _Floats = np.where((total[..., 0] > 0).all(1), np.exp2(doublings), np.nan)
    return ratios


def _interval(values: _Floats) -> Interval | None:
    """Give the first value with the bounds of the others."""
    if not np.isfinite(values[0]):
        return None
    others = values[1:][np.isfinite(values[1:])]
    if not others.size:
        return Interval(float(values[0]), float("-inf"), float("inf"))
    low, high = np.percentile(others, [2.5, 97.5])
    return Interval(float(values[0]), float(low), float(high))
