"""The report's pictures as positions on a plane; the template draws them, so that they follow the page.

A scatter is laid out twice, for a wide and for a narrow screen, in pixels that are shown as they are:
a picture that is scaled to a phone would shrink its letters as well.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Final

from edgeml.axis import Axis, Tick
from edgeml.figures import milliseconds, shorten
from edgeml_converters.evaluate.metrics import Metric
from edgeml_converters.search.choose import SQNR_FLOOR_DB
from edgeml_converters.sensitivity.noise import Sensitivity
from edgeml_converters.variants.rows import Row

RUNTIME_COLOUR: Final[Mapping[str, int]] = {"litert": 1, "onnxruntime": 2, "openvino": 3}
"""Number of the page's colour for each runtime; 0 for any other."""
LARGEST_RADIUS: Final[Mapping[str, float]] = {"wide": 17.0, "narrow": 12.0}
SMALLEST_RADIUS: Final = 4.0
MARGIN_LEFT: Final = 62.0
MARGIN_BOTTOM: Final = 46.0
INSET: Final = 22.0
"""Room for circles between the outermost values and the frame."""
LETTER: Final = 8.0
"""Width of a digit of the numbers beside circles; their height is twice that."""
LABEL_AWAY: Final = (11.0, 17.0, 25.0, 35.0, 47.0, 61.0, 77.0)
"""Distances from its circle at which a number is tried."""
PARITY_MAX_DB: Final = 150.0
"""Float steps that change nothing but the order of sums reach 120 to 150 dB."""
SHOWN_RANGES: Final = 40
"""Calibrated tensors that a picture shows, in graph order."""
SHOWN_CHARACTERS: Final = 46
RANKING_MAX_DB: Final = 60.0
"""An activation that fills its range evenly has 48 dB in 8 bits."""


@dataclass(frozen=True, slots=True)
class Point:
    """A variant as a circle, with the number that it has in the table."""

    number: int
    text: str
    x: float
    y: float
    radius: float
    colour: int
    chosen: bool
    usable: bool
    label_x: float
    label_y: float

    @property
    def is_far(self) -> bool:
        """Say whether the number needs a line to its circle."""
        away = math.hypot(self.label_x - self.x, self.label_y - self.y)
        return away > self.radius + LABEL_AWAY[1] + 1


@dataclass(frozen=True, slots=True)
class Scatter:
    """Latency to the right, accuracy (or SQNR) upwards, size as area."""

    form: str
    """``wide`` or ``narrow``."""
    width: float
    height: float
    left: float
    bottom: float
    points: tuple[Point, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    x_title: str
    y_title: str


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar beside its name; places in per cent of the track."""

    name: str
    full_name: str
    left: float
    width: float
    value: str
    tone: int = 1
    """Number of the page's colour."""


def scatters(
    rows: Sequence[Row], metric: Metric | None, chosen: frozenset[str | None]
) -> tuple[Scatter, ...]:
    """Lay out accuracy against latency for both forms; nothing where no row has both.

    Args:
        rows: the rows of the table, in its order: they are numbered from 1.
        metric: what accuracy is; ``None``: SQNR is drawn.
        chosen: names of the variants that were chosen for a target.
    """
    known = []
    for number, row in enumerate(rows, 1):
        height = _height(row, metric)
        if row.measured.latency_ms is not None and height is not None:
            known.append((number, row, row.measured.latency_ms.p50, height))
    if not known:
        return ()
    forms = (("wide", 720.0, 380.0), ("narrow", 340.0, 340.0))
    return tuple(_scatter(form, width, height, known, metric, chosen) for form, width, height in forms)


def _scatter(
    form: str,
    width: float,
    height: float,
    known: Sequence[tuple[int, Row, float, float]],
    metric: Metric | None,
    chosen: frozenset[str | None],
) -> Scatter:
    is_share = metric is not None and metric.is_share
    across = Axis([x for _, _, x, _ in known], MARGIN_LEFT + INSET, width - INSET, may_be_log=True)
    limit = 100.0 if is_share else math.inf
    up = Axis([y for *_, y in known], height - MARGIN_BOTTOM - INSET, INSET, highest=limit)
    largest = max(row.size_bytes or 1 for _, row, _, _ in known)
    circles = []
    for number, row, x, y in known:
        radius = max(SMALLEST_RADIUS, LARGEST_RADIUS[form] * math.sqrt((row.size_bytes or 0) / largest))
        circles.append((number, row, across.place(x), up.place(y), radius))
    circles.sort(key=lambda one: -one[4])  # a small circle stays visible on a large one
    labels = _labels([(number, x, y, radius) for number, _, x, y, radius in circles], width, height)
    points = tuple(
        Point(
            number, row.name, x, y, radius, RUNTIME_COLOUR.get(row.runtime, 0),
            row.name in chosen, row.status == "ok", *labels[number],
        )
        for number, row, x, y, radius in circles
    )  # fmt: skip
    name = f"{metric.name}{', %' if is_share else ''}" if metric is not None else "SQNR, dB"
    x_title = "latency p50, ms" + (" (logarithmic)" if across.is_log else "")
    ticks = 8 if form == "wide" else 4
    return Scatter(
        form, width, height, MARGIN_LEFT, height - MARGIN_BOTTOM, points,
        across.ticks(ticks), up.ticks(6), x_title, name,
    )  # fmt: skip


def _labels(
    circles: Sequence[tuple[int, float, float, float]], width: float, height: float
) -> dict[int, tuple[float, float]]:
    """Put each number beside its circle where it covers no other number, the nearest place first."""
    placed: dict[int, tuple[float, float]] = {}
    for number, x, y, radius in sorted(circles, key=lambda one: one[3]):
        others = [one for one in circles if one[0] != number]
        tried = [
            (_cost(spot, others, list(placed.values())) + away / 10, spot)
            for away in LABEL_AWAY
            for spot in _around(x, y, radius + away)
            if MARGIN_LEFT + LETTER < spot[0] < width - 2 * LETTER
            and LETTER < spot[1] < height - MARGIN_BOTTOM - LETTER
        ]
        placed[number] = min(tried, key=lambda one: one[0])[1] if tried else (x, y)
    return placed


def _around(x: float, y: float, away: float) -> list[tuple[float, float]]:
    """Give eight places around a point, to the right and left first."""
    angles = [eighth * math.pi / 4 for eighth in (0, 4, 2, 6, 1, 3, 5, 7)]
    return [(round(x + away * math.cos(one), 1), round(y - away * math.sin(one), 1)) for one in angles]


def _cost(
    spot: tuple[float, float],
    circles: Sequence[tuple[int, float, float, float]],
    placed: Sequence[tuple[float, float]],
) -> float:
    """Say how bad a place for a number is: on another number, on another variant's circle."""
    x, y = spot
    covered = sum(abs(x - at_x) < 3 * LETTER and abs(y - at_y) < 2 * LETTER for at_x, at_y in placed)
    under = sum(math.hypot(x - at_x, y - at_y) < radius + LETTER for _, at_x, at_y, radius in circles)
    return 10.0 * covered + 3.0 * under


def parity(steps: Sequence[tuple[str, float, bool]]) -> tuple[Bar, ...]:
    """Lay out how close each step stayed to its own source.

    Args:
        steps: title, SQNR of the worst output in dB, whether it quantizes.
    """
    return tuple(
        Bar(
            name=title,
            full_name=title,
            left=0.0,
            width=round(100 * min(max(value_db, 0.0), PARITY_MAX_DB) / PARITY_MAX_DB, 1),
            value="exact" if value_db > PARITY_MAX_DB else f"{value_db:.1f} dB",
            tone=2 if quantizes else 1,
        )
        for title, value_db, quantizes in steps
    )


def ranges(told: Mapping[str, tuple[float, float]]) -> tuple[Bar, ...]:
    """Lay out calibrated ranges around zero, on the scale of log(1 + size)."""
    shown = list(told.items())[:SHOWN_RANGES]
    short = short_names([name for name, _ in shown])
    reach = max((abs(end) for _, pair in shown for end in pair if math.isfinite(end)), default=1.0) or 1.0
    bars = []
    for name, (low, high) in shown:
        left, right = 50 * (1 + _bent(low) / _bent(reach)), 50 * (1 + _bent(high) / _bent(reach))
        value = f"{low:.3g} … {high:.3g}"
        bars.append(Bar(short[name], name, round(left, 1), round(right - left, 1), value))
    return tuple(bars)


def ranking(activations: Sequence[Sensitivity], kept: frozenset[str] = frozenset()) -> tuple[Bar, ...]:
    """Lay out what 8 bits leave of each activation; those that were ``kept`` in float are said to be."""
    short = short_names([one.tensor for one in activations])
    return tuple(
        Bar(
            name=short[one.tensor],
            full_name=f"{one.tensor}, {one.low:.3g} … {one.high:.3g}",
            left=0.0,
            width=round(100 * min(max(one.sqnr_db, 0.0), RANKING_MAX_DB) / RANKING_MAX_DB, 1),
            value=f"{one.sqnr_db:.1f} dB" + (", in float" if one.tensor in kept else ""),
            tone=3 if one.tensor in kept else 2 if one.sqnr_db < SQNR_FLOOR_DB else 1,
        )
        for one in activations
    )


def drops(points: Sequence[float]) -> tuple[Bar, ...]:
    """Lay out points lost to the left of the middle, and gained to its right."""
    reach = max((abs(one) for one in points if math.isfinite(one)), default=0.0) or 1.0
    bars = []
    for one in points:
        width = round(50 * min(1.0, abs(one) / reach), 1)
        left = 50.0 - width if one > 0 else 50.0
        bars.append(Bar("", "", left, width, f"{one:+.2f}", 2 if one > 0 else 3))
    return tuple(bars)


def times(pairs: Sequence[tuple[float, float]]) -> tuple[tuple[Bar, Bar], ...]:
    """Lay out milliseconds before and after, on one scale."""
    longest = max((time for pair in pairs for time in pair), default=0.0) or 1.0
    return tuple(
        (
            Bar("", "", 0.0, round(100 * before / longest, 1), milliseconds(before), 1),
            Bar("", "", 0.0, round(100 * after / longest, 1), milliseconds(after), 2),
        )
        for before, after in pairs
    )


def short_names(names: Sequence[str]) -> dict[str, str]:
    """Cut names for a narrow column; those that would read the same keep the parts that tell them apart."""
    alike: dict[str, list[str]] = {}
    for name in dict.fromkeys(names):
        alike.setdefault(shorten(name, SHOWN_CHARACTERS), []).append(name)
    short = {}
    for text, group in alike.items():
        parts = [name.split("/") for name in group]
        start = _shared(parts)
        end = _shared([one[start:][::-1] for one in parts])
        for name, own in zip(group, parts, strict=True):
            middle = "/".join(own[start : len(own) - end])
            short[name] = shorten(f"…{middle}…", SHOWN_CHARACTERS) if len(group) > 1 else text
    return short


def _shared(lists: Sequence[Sequence[str]]) -> int:
    """Say how many first parts are the same in all."""
    return sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, zip(*lists, strict=False)))


def _bent(value: float) -> float:
    return math.copysign(math.log1p(abs(value)), value) if math.isfinite(value) else 0.0


def _height(row: Row, metric: Metric | None) -> float | None:
    if metric is None:
        return row.measured.sqnr_db
    accuracy = row.measured.accuracy
    if accuracy is None:
        return None
    return 100 * accuracy if metric.is_share else accuracy
