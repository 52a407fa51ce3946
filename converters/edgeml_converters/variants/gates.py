"""What is asked of the variant that is chosen: what it must hold, and what it should have least of."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from numbers import Real
from typing import Final, Literal

from edgeml.errors import UsageError
from edgeml_converters.evaluate.slices import SLICE_SAMPLES, worst
from edgeml_converters.variants.rows import Row

Objective = Literal["latency", "size", "memory"]
DEFAULT_MAX_DROP: Final = 1.0
"""Points of accuracy that a faster variant may cost when no ``max_drop`` is given."""


@dataclass(frozen=True, slots=True)
class Gates:
    """What a variant must hold; ``None``: anything goes."""

    max_drop: float | None = None
    max_latency_ms: float | None = None
    max_size_bytes: int | None = None
    max_slice_drop: float | None = None
    """Points that the worst class or slice may lose, of those with ``SLICE_SAMPLES`` and more."""

    def __post_init__(self) -> None:
        """Refuse what holds for every figure because nothing is more than it.

        Raises:
            UsageError: a gate is NaN, or no number.
        """
        for field in fields(self):
            given = getattr(self, field.name)
            if given is not None and (not isinstance(given, Real) or math.isnan(given)):
                raise UsageError(f"the gate {field.name} must be a number, not {given!r}")

    @property
    def allowed_drop(self) -> float:
        """Points of accuracy that the chosen variant may lose."""
        return DEFAULT_MAX_DROP if self.max_drop is None else self.max_drop

    def accuracy_broken_by(self, row: Row) -> str | None:
        """Say which gate on accuracy the row breaks, if any; what was not measured holds no gate."""
        if self.max_drop is not None:
            if row.drop_points is None:
                return f"accuracy was not measured; allowed is a drop of {self.max_drop:g} points"
            if not row.drop_points <= self.max_drop:  # NaN is no less
                return f"accuracy drop {row.drop_points:.2f} points, allowed {self.max_drop:g}"
        if self.max_slice_drop is not None:
            lost = worst(row.slices)
            if lost is None:
                return f"no class or slice was measured on {SLICE_SAMPLES} samples or more"
            if not lost.drop_points <= self.max_slice_drop:
                return (
                    f"class or slice {lost.label} loses {lost.drop_points:.2f} points on {lost.count} "
                    f"samples, allowed {self.max_slice_drop:g}"
                )
        return None

    def broken_by(self, row: Row) -> str | None:
        """Say which gate the row breaks, if any; what was not measured holds no gate."""
        accuracy = self.accuracy_broken_by(row)
        if accuracy is not None:
            return accuracy
        latency = row.measured.latency_ms
        if self.max_latency_ms is not None:
            if latency is None:
                why = f" ({row.reason})" if row.reason else ""
                return f"latency was not measured{why}; allowed are {self.max_latency_ms:g} ms"
            if not latency.p50 <= self.max_latency_ms:
                return f"latency {latency.p50:.3g} ms (p50), allowed {self.max_latency_ms:g} ms"
        size = row.size_bytes
        if self.max_size_bytes is not None and size is not None and size > self.max_size_bytes:
            return f"size {size:,} bytes, allowed {self.max_size_bytes:,} bytes"
        return None

    def overshoot(self, row: Row) -> float:
        """Say how far a row is beyond the gate that it breaks most: a share of the gate, or points of it.

        Infinite where what a gate asks for was not measured.
        """
        worst_slice, latency_ms = worst(row.slices), row.measured.latency_ms
        lost = None if worst_slice is None else worst_slice.drop_points
        p50 = None if latency_ms is None else latency_ms.p50
        shares = [
            found / allowed - 1.0 if found is not None else math.inf
            for found, allowed in ((p50, self.max_latency_ms), (row.size_bytes, self.max_size_bytes))
            if allowed
        ]
        points = [
            found - allowed if found is not None else math.inf
            for found, allowed in ((row.drop_points, self.max_drop), (lost, self.max_slice_drop))
            if allowed is not None
        ]
        return max((*shares, *points), default=0.0)
