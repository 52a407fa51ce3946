"""Where the time goes, before and after quantization: operators by their type."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from edgeml.figures import milliseconds
from edgeml.runtime import OperatorTime
from edgeml_converters.report import charts
from edgeml_converters.report.cells import NOTHING
from edgeml_converters.report.charts import Bar
from edgeml_converters.search.outcome import Outcome
from edgeml_converters.variants.rows import Row

SHOWN: Final = 10
"""Types of operators that the page shows, those that take longest before or after."""


BOTH: Final = 2


@dataclass(frozen=True, slots=True)
class TypeTime:
    """All operators of one type."""

    kind: str
    count: int
    mean_ms: float
    """Of all of them together, in one run, as profiled."""
    share: float
    """Of all operators' time."""


@dataclass(frozen=True, slots=True)
class PageType:
    """A type of operators before and after, rendered."""

    kind: str
    before: tuple[str, str]
    """How many, and milliseconds."""
    after: tuple[str, str]
    bars: tuple[Bar, Bar]


@dataclass(frozen=True, slots=True)
class PageOperators:
    """One runtime's float32 variant beside its best quantized one."""

    before: str
    after: str
    rows: tuple[PageType, ...]
    more: int
    reason: str = ""
    """Why there are none."""


def by_type(operators: Sequence[OperatorTime]) -> tuple[TypeTime, ...]:
    """Sum operators by type, the slowest first.

    Types are what the engine calls them without kernel, precision and layout, so that a convolution stays
    one when it is quantized.
    """
    found: dict[str, list[float]] = {}
    for one in operators:
        found.setdefault(_type_of(one.kind), []).append(one.mean_us / 1000.0)
    whole = sum(sum(times) for times in found.values()) or 1.0
    summed = (TypeTime(kind, len(times), sum(times), sum(times) / whole) for kind, times in found.items())
    return tuple(sorted(summed, key=lambda one: (-one.mean_ms, one.kind)))


def operators_document(row: Row) -> dict[str, Any] | None:
    """Give a row's operator times as what ``json.dumps`` takes; ``None``: they were not asked for."""
    if row.profile is None:
        return None
    return {
        "reason": row.profile.reason or None,
        "types": [asdict(one) for one in by_type(row.profile.operators)],
        "operators": [asdict(one) for one in row.profile.operators],
    }


def page_operators(outcome: Outcome) -> Iterator[PageOperators]:
    """Give each runtime's times before and after, where it was asked for them."""
    for pair in outcome.pairs():
        profiles = [row.profile for row in (pair.before, pair.after) if row.profile is not None]
        if len(profiles) == BOTH:
            reason = next((one.reason for one in profiles if one.reason), "")
            rows = () if reason else _rows(_milliseconds(pair.before), _milliseconds(pair.after))
            yield PageOperators(
                pair.before.name, pair.after.name, rows[: SHOWN + 1], max(0, len(rows) - SHOWN - 1), reason
            )


def _milliseconds(row: Row) -> dict[str, tuple[int, float]]:
    """Give how many operators a type has, and their share of the median latency.

    A profiler slows a model down, and other work does: shares of the latency that was measured without it
    can be compared.
    """
    latency = row.measured.latency_ms
    operators = row.profile.operators if row.profile is not None else ()
    p50 = latency.p50 if latency is not None else 0.0
    return {one.kind: (one.count, one.share * p50) for one in by_type(operators)}


def _rows(
    before: Mapping[str, tuple[int, float]], after: Mapping[str, tuple[int, float]]
) -> tuple[PageType, ...]:
    """Give the sum, then each type, that first which takes longest in either."""
    kinds = sorted(
        {**before, **after}, key=lambda kind: -max(part.get(kind, (0, 0.0))[1] for part in (before, after))
    )
    sides = [(before.get(kind), after.get(kind)) for kind in kinds]
    sides = [(_whole(before), _whole(after)), *sides]
    bars = charts.times([(old[1] if old else 0.0, new[1] if new else 0.0) for old, new in sides])
    return tuple(
        PageType(kind, _cells(old), _cells(new), pair)
        for kind, (old, new), pair in zip(("all", *kinds), sides, bars, strict=True)
    )


def _whole(part: Mapping[str, tuple[int, float]]) -> tuple[int, float]:
    return sum(count for count, _ in part.values()), sum(time for _, time in part.values())


def _cells(one: tuple[int, float] | None) -> tuple[str, str]:
    return (NOTHING, NOTHING) if one is None else (str(one[0]), milliseconds(one[1]))


def _type_of(kind: str) -> str:
    """Cut off the kernel, the precision and the engine's mark of a quantized operator."""
    bare = re.sub(r"\s*\([^)]*\)", "", kind.partition(" · ")[0])
    if bare.isupper():  # LiteRT's own kernels, beside those of XNNPACK
        bare = bare.replace("_", " ").title()
    bare = re.sub(r"^Q(Linear)?(?=[A-Z][a-z])|Quantized(Legacy)?$", "", bare)
    words = bare.split()
    half = len(words) // 2
    return " ".join(words[:half] if words[:half] == words[half:] else words) or kind
