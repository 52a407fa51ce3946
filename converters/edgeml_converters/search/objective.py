"""What the variant chosen for a target has least of: latency, size or memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from edgeml.figures import milliseconds, readable_size
from edgeml_converters.variants.gates import Objective
from edgeml_converters.variants.rows import Row

EQUAL_LATENCY: Final = 1.05
"""Medians of the same file measured twice differ by up to about 5 %."""
EQUAL_MEMORY: Final = 1.05
"""Peaks of the same file differ by a few per cent with what the allocator keeps."""


@dataclass(frozen=True, slots=True)
class Goal:
    """What an objective compares."""

    cost: Callable[[Row], float]
    """Infinite where it was not measured."""
    equal: float
    """Costs up to so many times the lowest count as equal."""
    best: str
    among_equals: str
    as_good: str
    comparative: str
    show: Callable[[float], str]

    def least(self, rows: Sequence[Row]) -> float:
        """Give the lowest cost."""
        return min(map(self.cost, rows))

    def worse(self, name: str, own: float, other: float) -> str:
        """Say that a cost is higher than that of the variant called ``name``."""
        if math.isinf(own):
            return f"not measured; {name} was"
        return f"{self.comparative} than {name}: {self.show(own)} against {self.show(other)}"


def goal(objective: Objective, rows: Sequence[Row]) -> Goal:
    """Give what is compared among rows; their size, where nothing was measured."""
    wanted = GOALS[objective]
    return wanted if math.isfinite(wanted.least(rows)) else GOALS["size"]


def latency(row: Row) -> float:
    """Give the median in ms."""
    return math.inf if row.measured.latency_ms is None else row.measured.latency_ms.p50


def _size(row: Row) -> float:
    return math.inf if row.size_bytes is None else row.size_bytes


def _memory(row: Row) -> float:
    peak = row.measured.peak_memory_bytes
    return math.inf if peak is None else peak


def _time(cost: float) -> str:
    return f"{milliseconds(cost)} ms"


def _bytes(cost: float) -> str:
    return readable_size(int(cost))


GOALS: Final[Mapping[Objective, Goal]] = {
    "latency": Goal(
        latency, EQUAL_LATENCY, "fastest", "within 5 % of the lowest latency", "as fast as", "slower", _time
    ),
    "size": Goal(_size, 1.0, "smallest", "of the same size", "as small as", "larger", _bytes),
    "memory": Goal(
        _memory,
        EQUAL_MEMORY,
        "one with the least memory",
        "within 5 % of the least memory",
        "needs as little memory as",
        "needs more memory",
        _bytes,
    ),
}
