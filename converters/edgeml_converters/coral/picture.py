"""The graph of a model as positions on a plane, each operator with where it runs; templates draw them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from edgeml_converters.coral.check import Check
from edgeml_converters.coral.partition import Edges, edges, partition
from edgeml_converters.coral.reasons import Placement

MOST_DRAWN: Final = 2_000
"""Operators; a picture of more is too long for any browser."""
WIDTH: Final = 196.0
HEIGHT: Final = 22.0
GAP_X: Final = 16.0
GAP_Y: Final = 14.0
MARGIN: Final = 8.0
TEMPLATE: Final = "graph.svg.jinja"
_LETTERS: Final = 26


@dataclass(frozen=True, slots=True)
class Box:
    """An operator."""

    x: float
    y: float
    placement: Placement
    text: str
    title: str
    """What a browser shows of it when it is pointed at."""


@dataclass(frozen=True, slots=True)
class Line:
    """A tensor, from the operator that computes it to one that reads it."""

    x: float
    y: float
    to_x: float
    to_y: float
    bow: float
    """How far it leans to the side where it passes other operators."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A graph laid out in rows, from its inputs down; units are pixels."""

    width: float
    height: float
    box_width: float
    box_height: float
    boxes: tuple[Box, ...]
    lines: tuple[Line, ...]


def picture(check: Check) -> Picture | None:
    """Lay a graph out; ``None``: it has too many operators to draw."""
    operators = check.placements.operators
    if len(operators) > MOST_DRAWN:
        return None
    graph_edges = edges(check.graph)
    rows, columns = _places(graph_edges)
    places = [
        (MARGIN + column * (WIDTH + GAP_X), MARGIN + row * (HEIGHT + GAP_Y))
        for row, column in zip(rows, columns, strict=True)
    ]
    boxes = tuple(
        Box(
            x, y, one.placement, f"{one.index} {one.kind}"[:_LETTERS], f"{one.index} {one.kind}: {one.reason}"
        )
        for (x, y), one in zip(places, operators, strict=True)
    )
    lines = tuple(
        _line(places[maker], places[reader], rows[reader] - rows[maker])
        for maker, readers in enumerate(graph_edges.readers)
        for reader in dict.fromkeys(readers)
    )
    width = 2 * MARGIN + (max(columns, default=0) + 1) * (WIDTH + GAP_X)
    height = 2 * MARGIN + (max(rows, default=0) + 1) * (HEIGHT + GAP_Y)
    return Picture(width, height, WIDTH, HEIGHT, boxes, lines)


def svg(drawn: Picture) -> str:
    """Draw a picture as a file of its own."""
    return str(_template().render(graph=drawn, alone=True)) + "\n"


def _places(graph_edges: Edges) -> tuple[list[int], list[int]]:
    """Give row and column of each operator: below all that it waits for, under the last if there is room."""
    count = len(graph_edges.waiting)
    rows, columns, wished = [0] * count, [0] * count, [0] * count
    taken: dict[int, set[int]] = {}
    for index in sorted(range(count), key=_order(graph_edges).__getitem__):
        used = taken.setdefault(rows[index], set())
        columns[index] = _free(used, wished[index])
        used.add(columns[index])
        for reader in graph_edges.readers[index]:
            if rows[reader] < rows[index] + 1:
                rows[reader], wished[reader] = rows[index] + 1, columns[index]
    return rows, columns


def _order(graph_edges: Edges) -> list[int]:
    """Give each operator's place among all, after those that it waits for; those that never run come last."""
    count = len(graph_edges.waiting)
    place = [count] * count
    for position, index in enumerate(partition(graph_edges, frozenset()).order):
        place[index] = position
    return place


def _free(used: set[int], wished: int) -> int:
    """Give the free column that is nearest to the one wished for."""
    away = 0
    while True:
        for column in (wished - away, wished + away):
            if column >= 0 and column not in used:
                return column
        away += 1


def _line(maker: tuple[float, float], reader: tuple[float, float], rows: int) -> Line:
    bow = WIDTH * 0.75 if rows > 1 else 0.0
    return Line(maker[0] + WIDTH / 2, maker[1] + HEIGHT, reader[0] + WIDTH / 2, reader[1], bow)


@cache
def _template() -> Any:
    import jinja2

    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    return jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    ).get_template(TEMPLATE)
