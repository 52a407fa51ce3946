"""What a rule compares: ``error_rate{model="kws", by="release", window="1h"} > 0.05``.

The syntax is that of a Prometheus selector compared with a number, so that Prometheus' own tools take the
file; the labels are the question's parts.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from edgeml.errors import UsageError
from edgeml_devices.server.telemetry.questions import TOTAL, Dimension, dimensions, listed

_LONGEST: Final = 4000
_WINDOW_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_OPERATORS: Final[Mapping[str, Callable[[float, float], bool]]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
}
_EXPRESSION: Final = re.compile(
    r"\s*(?P<metric>[a-z_]+)\s*(?:\{(?P<labels>.*)\})?\s*(?P<operator>>=|<=|==|!=|>|<)\s*(?P<limit>[^\s{}]+)\s*",
    re.DOTALL,
)
_LABEL: Final = re.compile(r'\s*(?P<name>[a-z_]+)\s*=\s*"(?P<value>(?:[^"\\]|\\["\\])*)"\s*(?:,|$)')
_WHO: Final = frozenset({"device", "group", "selector", "target"})
_WHAT: Final = frozenset({"model", "release", "variant"})
_COMMON: Final = _WHO | {"window"}
METRICS: Final[Mapping[str, frozenset[str]]] = {
    "latency_seconds": _COMMON | _WHAT | {"by", "q", "metric", "bound", "min_count"},
    "confidence": _COMMON | _WHAT | {"by", "q", "bound", "min_count"},
    "error_rate": _COMMON | _WHAT | {"by", "bound", "min_count"},
    "calls_per_second": _COMMON | _WHAT | {"by"},
    "latency_ratio": _COMMON | _WHAT | {"against", "q", "pairing", "bound"},
    "error_rate_difference": _COMMON | _WHAT | {"against", "pairing", "bound"},
    "machine": _COMMON | {"by", "quantity", "stat"},
    "energy_per_call_joules": _COMMON | {"by"},
    "covered_share": _COMMON | {"by"},
    "missing_windows": _COMMON | {"by"},
    "drifted_features": _COMMON | _WHAT | {"by"},
    "silent_seconds": frozenset(_WHO),
}
"""Names, and the labels that each takes."""
_NEEDED: Final[Mapping[str, tuple[str, ...]]] = {
    "latency_ratio": ("model", "release", "against"),
    "error_rate_difference": ("model", "release", "against"),
    "machine": ("quantity",),
}


@dataclass(frozen=True, slots=True)
class Expression:
    """One comparison."""

    metric: str
    labels: Mapping[str, str]
    operator: str
    limit: float
    text: str

    def holds(self, value: float) -> bool:
        """Say whether a value meets it."""
        return _OPERATORS[self.operator](value, self.limit)

    def get(self, name: str, default: str) -> str:
        """Give a label's value."""
        return self.labels.get(name, default)

    @property
    def by(self) -> tuple[Dimension, ...]:
        """What instances are told apart by."""
        return dimensions(listed(self.get("by", "")))

    @property
    def window_s(self) -> float:
        """How long back it looks."""
        return span_s(self.get("window", "1h"))

    @property
    def share(self) -> float:
        """Which quantile."""
        return float(self.get("q", "0.95"))

    @property
    def stage(self) -> str:
        """What latency is of."""
        return self.get("metric", TOTAL)


def parse(text: str) -> Expression:
    """Read an expression.

    Raises:
        UsageError: it is none, or a label or value that the metric has not; it is named.
    """
    found = _EXPRESSION.fullmatch(text) if len(text) <= _LONGEST else None
    if found is None:
        raise UsageError(
            f'cannot read {text.strip()!r:.120}; write it like error_rate{{model="kws", window="1h"}} > 0.05'
        )
    metric = found["metric"]
    if metric not in METRICS:
        raise UsageError(f"there is no {metric!r}; there are: {', '.join(METRICS)}")
    try:
        limit = float(found["limit"])
    except ValueError:
        limit = math.nan
    if math.isnan(limit):
        raise UsageError(f"{metric} is compared with a number, got {found['limit']!r:.40}")
    expression = Expression(
        metric, _labels(metric, found["labels"] or ""), found["operator"], limit, text.strip()
    )
    _check(expression)
    return expression


def span_s(text: str) -> float:
    """Read a span as Prometheus writes it: ``90s``, ``5m``, ``1h30m``, ``7d``.

    Raises:
        UsageError: it is none.
    """
    parts = re.findall(r"(\d{1,6})([smhdw])", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise UsageError(f"{text!r:.40} is no span of time: write 30s, 5m, 1h or 7d")
    return float(sum(int(number) * _WINDOW_UNITS[unit] for number, unit in parts))


def _labels(metric: str, text: str) -> dict[str, str]:
    labels: dict[str, str] = {}
    place = 0
    while text[place:].strip():
        found = _LABEL.match(text, place)
        if found is None:
            raise UsageError(f'{metric}: cannot read {text[place:].strip()!r:.60}; write name="value"')
        name = found["name"]
        if name not in METRICS[metric]:
            raise UsageError(f"{metric} has no {name!r}; it takes: {', '.join(sorted(METRICS[metric]))}")
        if name in labels:
            raise UsageError(f"{metric}: {name} stands twice")
        labels[name] = re.sub(r"\\(.)", r"\1", found["value"])
        place = found.end()
    return labels


def _check(expression: Expression) -> None:
    """Read each label once, so that a slip is told when the file is read and not at night."""
    for name in _NEEDED.get(expression.metric, ()):
        if name not in expression.labels:
            raise UsageError(f"{expression.metric} needs {name}")
    _ = expression.by, expression.window_s
    for name in ("release", "against", "min_count"):
        value = expression.get(name, "0")
        if not (value.isascii() and value.isdigit()):
            raise UsageError(f"{expression.metric}: {name} is a whole number, got {value!r:.40}")
    try:
        is_share = 0 <= expression.share <= 1
    except ValueError:
        is_share = False
    if not is_share:
        raise UsageError(
            f"{expression.metric}: q is a share from 0 to 1, got {expression.get('q', '')!r:.40}"
        )
    for name, values in (
        ("bound", ("value", "low", "high")),
        ("stat", ("min", "mean", "max")),
        ("pairing", ("device-hour", "device", "target-hour")),
    ):
        if expression.get(name, values[0]) not in values:
            raise UsageError(f"{expression.metric}: {name} is one of {', '.join(values)}")
