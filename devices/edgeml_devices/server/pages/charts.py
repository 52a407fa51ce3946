"""The pictures of telemetry as positions on a plane; a template draws them, so that they follow the page.

Each is laid out twice, for a wide and for a narrow screen, in pixels that are shown as they are: see
docs/adr/0008 and 0015.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from edgeml.axis import Axis, Tick
from edgeml.telemetry.exponential import ExponentialHistogram, merge

FORMS: Final = (("wide", 720.0, 250.0), ("narrow", 330.0, 230.0))
"""Name, width and height in pixels; the style sheet shows one of them."""
MOST_ROWS: Final = 24
"""Buckets of a heat map; more are added up by twos."""
_LEFT: Final = 58.0
_BOTTOM: Final = 34.0
_TOP: Final = 12.0
_RIGHT: Final = 10.0
_HOUR_S: Final = 3600
_DAY_S: Final = 24 * _HOUR_S
_STEPS_S: Final = tuple(_HOUR_S * hours for hours in (1, 2, 4, 6, 12, 24, 48, 120, 240))
_MOST_TICKS: Final[Mapping[str, tuple[int, int]]] = {"wide": (9, 6), "narrow": (4, 5)}
"""Marks across and upwards."""


@dataclass(frozen=True, slots=True)
class Point:
    """A value at a time, and where the true one lies."""

    at: float
    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Series:
    """What one line shows."""

    name: str
    points: Sequence[Point]
    """By rising time."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line, and the area in which the true one lies."""

    name: str
    path: str
    band: str = ""


@dataclass(frozen=True, slots=True)
class Cell:
    """A rectangle; ``strength`` from 0 to 1 is how much of its colour it has."""

    x: float
    y: float
    width: float
    height: float
    strength: float


@dataclass(frozen=True, slots=True)
class Chart:
    """One picture in one form."""

    form: str
    width: float
    height: float
    left: float
    right: float
    bottom: float
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    lines: tuple[Line, ...] = ()
    cells: tuple[Cell, ...] = ()


@dataclass(frozen=True, slots=True)
class Span:
    """What the time axis shows, and how long one value of it stands for."""

    begin: float
    end: float
    step_s: float


def over_time(
    series: Sequence[Series], span: Span, *, may_be_log: bool = False, from_zero: bool = False
) -> tuple[Chart, ...]:
    """Draw values over time, each in the middle of its step; a step without a value is a gap.

    Returns:
        Both forms; none where no series has a point.
    """
    values = [end for one in series for point in one.points for end in (point.low, point.value, point.high)]
    known = [value for value in values if math.isfinite(value)]
    if not known:
        return ()

    def draw(form: str, width: float, height: float) -> Chart:
        bottom = height - _BOTTOM
        across = _across(span, width)
        up = Axis([*known, 0.0] if from_zero else known, bottom, _TOP, may_be_log=may_be_log)
        lines = tuple(
            Line(
                one.name,
                _path(one.points, span, across, up.place),
                _band(one.points, span, across, up.place),
            )
            for one in series
        )
        most_across, most_up = _MOST_TICKS[form]
        return Chart(
            form, width, height, _LEFT, width - _RIGHT, bottom,
            time_ticks(span, across, most_across), up.ticks(most_up), lines,
        )  # fmt: skip

    return tuple(draw(*form) for form in FORMS)


def heat_map(
    columns: Sequence[tuple[float, ExponentialHistogram]], span: Span, factor: float = 1000.0
) -> tuple[Chart, ...]:
    """Draw histograms side by side: a column for each step, stronger where more of its values lie.

    Args:
        columns: when a step begins, and what was counted in it.
        span: the time axis.
        factor: from seconds to the unit of the marks.
    """
    counted = [(at, one) for at, one in columns if one.counts]
    if not counted:
        return ()
    scale = min(one.scale for _, one in counted)
    first, last = _reach([one for _, one in counted], scale)
    while last - first + 1 > MOST_ROWS:
        scale -= 1
        first, last = first >> 1, last >> 1
    rows = last - first + 1
    coarse = [(at, merge([one], scale)) for at, one in counted]

    def draw(form: str, width: float, height: float) -> Chart:
        bottom = height - _BOTTOM
        across = _across(span, width)
        tall = (bottom - _TOP) / rows
        cells = []
        for at, one in coarse:
            x, most = across(at), max(one.counts)
            wide = max(across(min(at + span.step_s, span.end)) - x, 1.0)
            for place, count in enumerate(one.counts, one.offset):
                if count:
                    y = bottom - (place - first + 1) * tall
                    strength = round(max(0.08, count / most), 2)
                    cells.append(Cell(x, round(y, 1), round(wide, 1), round(tall, 1), strength))
        most_across, most_up = _MOST_TICKS[form]
        bounds = _bucket_ticks(first, rows, scale, bottom, tall, most_up, factor)
        return Chart(
            form, width, height, _LEFT, width - _RIGHT, bottom,
            time_ticks(span, across, most_across), bounds, cells=tuple(cells),
        )  # fmt: skip

    return tuple(draw(*form) for form in FORMS)


def distribution(counts: Sequence[int], expected: Sequence[int], bounds: Sequence[str]) -> tuple[Chart, ...]:
    """Draw what was seen as bars, and the reference as an outline, both as shares in per cent.

    Args:
        counts: of the window, by bin.
        expected: of the reference, by bin.
        bounds: what stands below: one for each bin, or one between each two.
    """
    seen, known = sum(counts), sum(expected)
    if not seen or not known or len(counts) != len(expected):
        return ()
    shares = [100 * one / seen for one in counts]
    references = [100 * one / known for one in expected]

    def draw(form: str, width: float, height: float) -> Chart:
        bottom, right = height - _BOTTOM, width - _RIGHT
        up = Axis([0.0, *shares, *references], bottom, _TOP)
        wide = (right - _LEFT) / len(counts)
        gap = min(2.0, wide / 6)
        cells, outline = [], f"M{_LEFT:.1f} {bottom:.1f}"
        for place, (share, reference) in enumerate(zip(shares, references, strict=True)):
            x, y = _LEFT + place * wide, up.place(share)
            outline += f"V{up.place(reference)}H{x + wide:.1f}"
            if share:
                cells.append(Cell(round(x + gap, 1), y, round(wide - 2 * gap, 1), max(bottom - y, 1.0), 0.75))
        most_across, most_up = _MOST_TICKS[form]
        line = Line("reference", f"{outline}V{bottom:.1f}")
        places = _bin_ticks(bounds, len(counts), wide, most_across)
        return Chart(
            form, width, height, _LEFT, right, bottom, places, up.ticks(most_up), (line,), tuple(cells)
        )

    return tuple(draw(*form) for form in FORMS)


def time_ticks(span: Span, across: Callable[[float], float], most: int) -> tuple[Tick, ...]:
    """Give whole hours or days (UTC)."""
    length = span.end - span.begin
    step = next((one for one in _STEPS_S if length / one <= most), _STEPS_S[-1])
    pattern = "%H:%M" if step < _DAY_S else "%d %b"
    first = math.ceil(span.begin / step) * step
    places = range(first, math.floor(span.end) + 1, step)
    return tuple(Tick(across(at), time.strftime(pattern, time.gmtime(at))) for at in places)


def _across(span: Span, width: float) -> Callable[[float], float]:
    scale = (width - _RIGHT - _LEFT) / (span.end - span.begin)
    return lambda at: round(_LEFT + (min(max(at, span.begin), span.end) - span.begin) * scale, 1)


def _runs(points: Sequence[Point], step_s: float) -> list[list[Point]]:
    """Part points where a step is missing."""
    runs: list[list[Point]] = [[points[0]]] if points else []
    for before, point in pairwise(points):
        if point.at - before.at > 1.5 * step_s:
            runs.append([])
        runs[-1].append(point)
    return runs


def _path(
    points: Sequence[Point], span: Span, across: Callable[[float], float], up: Callable[[float], float]
) -> str:
    half = span.step_s / 2
    parts = []
    for run in _runs(points, span.step_s):
        drawn = [f"{across(one.at + half)} {up(one.value)}" for one in run]
        if len(run) == 1:  # a short stroke, or nothing would be seen
            drawn = [f"{across(run[0].at + half) - 3:.1f} {up(run[0].value)}h6"]
        parts.append("M" + "L".join(drawn))
    return "".join(parts)


def _band(
    points: Sequence[Point], span: Span, across: Callable[[float], float], up: Callable[[float], float]
) -> str:
    half = span.step_s / 2
    parts = []
    for run in _runs([one for one in points if one.low < one.high], span.step_s):
        places = [across(one.at + half) for one in run]
        drawn = list(zip(places, run, strict=True))
        if len(run) == 1:
            drawn = [(places[0] - 2, run[0]), (places[0] + 2, run[0])]
        above = [f"{x:.1f} {up(one.high)}" for x, one in drawn]
        below = [f"{x:.1f} {up(one.low)}" for x, one in drawn]
        parts.append("M" + "L".join([*above, *reversed(below)]) + "Z")
    return "".join(parts)


def _reach(histograms: Sequence[ExponentialHistogram], scale: int) -> tuple[int, int]:
    """Give the first and the last bucket that is used, at a scale."""
    firsts = [one.offset >> (one.scale - scale) for one in histograms]
    lasts = [(one.offset + len(one.counts) - 1) >> (one.scale - scale) for one in histograms]
    return min(firsts), max(lasts)


def _bucket_ticks(
    first: int, rows: int, scale: int, bottom: float, tall: float, most: int, factor: float
) -> tuple[Tick, ...]:
    every = math.ceil((rows + 1) / most)
    return tuple(
        Tick(round(bottom - row * tall, 1), f"{factor * 2.0 ** ((first + row) * 2.0**-scale):.3g}")
        for row in range(0, rows + 1, every)
    )


def _bin_ticks(bounds: Sequence[str], bins: int, wide: float, most: int) -> tuple[Tick, ...]:
    every = math.ceil(len(bounds) / most) if bounds else 1
    shift = 0.5 if len(bounds) == bins else 1.0
    return tuple(
        Tick(round(_LEFT + (place + shift) * wide, 1), bounds[place])
        for place in range(0, len(bounds), every)
    )
