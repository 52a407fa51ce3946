"""Whether a model gives on this machine what it gave where its golden samples were made."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from edgeml.arrays import Array
from edgeml.errors import BundleError
from edgeml.manifest import Tolerance
from edgeml.tensors import TensorSpec

_ROUNDING: Final = 1e-9
"""A share of samples is a quotient: it may miss its limit by rounding."""


def samples(
    specs: Sequence[TensorSpec], stacked: Mapping[str, Array], where: str
) -> Iterator[dict[str, Array]]:
    """Give golden samples one by one, as they were before they were stacked along the first axis.

    Raises:
        BundleError: an input is missing, or its rows are no whole number of samples, in file ``where``.
    """
    counts = set()
    for spec in specs:
        if spec.name not in stacked:
            raise BundleError(f"{where}: holds no {spec.name!r}, the model's input; make the bundle again")
        counts.add(len(stacked[spec.name]) / _rows(spec))
    count = counts.pop() if len(counts) == 1 else 0.5
    if not count.is_integer() or not count:
        raise BundleError(f"{where}: not the same whole number of samples for each input")
    for place in range(int(count)):
        yield {spec.name: _slice(spec, stacked[spec.name], place) for spec in specs}


def _rows(spec: TensorSpec) -> int:
    return (spec.shape[0] or 1) if spec.shape else 1


def _slice(spec: TensorSpec, stacked: Array, place: int) -> Array:
    rows = _rows(spec)
    part: Array = stacked[place * rows : (place + 1) * rows]
    return part if spec.shape else part.reshape(())


@dataclass(slots=True)
class OutputParity:
    """One output against its golden values, which are ``expected``, stacked along the first axis."""

    name: str
    expected: Array
    tolerance: Tolerance
    max_abs: float = 0.0
    cosine_min: float = 1.0
    agreed: int = 0
    ranked: int = 0
    """Samples that have a largest value."""
    _used: int = 0
    _faults: list[str] = field(default_factory=list)

    def add(self, got: Array) -> None:
        """Take the output of the next sample."""
        rows = np.atleast_1d(got)
        wanted = self.expected[self._used : self._used + len(rows)]
        self._used += len(rows)
        if wanted.shape != rows.shape:
            self._faults.append(f"has shape {rows.shape}, the golden samples' is {wanted.shape}")
            return
        left, right = (part.reshape(-1).astype(np.float64) for part in (wanted, rows))
        finite = np.isfinite(left)
        if (
            not np.array_equal(left[~finite], right[~finite], equal_nan=True)
            or not np.isfinite(right[finite]).all()
        ):
            self._faults.append("holds NaN or infinite values")
            return
        self._add_values(left[finite], right[finite])
        if left.size > 1 and not np.isnan(left).any():
            self.ranked += 1
            self.agreed += int(left.argmax()) == int(right.argmax())

    def _add_values(self, left: Array, right: Array) -> None:
        if not left.size:
            return
        self.max_abs = max(self.max_abs, float(np.abs(right - left).max()))
        # of values that are all within the tolerance of 0 the angle says nothing
        if np.abs(left).max() > self.tolerance.max_abs:
            power = float(left @ left) * float(right @ right)
            self.cosine_min = min(self.cosine_min, float(left @ right) / math.sqrt(power) if power else 0.0)

    def fault(self) -> str | None:
        """Say what is beyond the tolerance, of all samples added; ``None`` if nothing is."""
        limits, faults = self.tolerance, list(dict.fromkeys(self._faults))
        if not faults and self._used != len(self.expected):
            faults.append(f"has {self._used} rows, the golden samples have {len(self.expected)}")
        if not self.max_abs <= limits.max_abs:
            faults.append(f"is off by {self.max_abs:.4g}, at most {limits.max_abs:.4g} is allowed")
        if not self.cosine_min >= limits.cosine_min:
            faults.append(f"has cosine {self.cosine_min:.4g}, at least {limits.cosine_min:.4g} is needed")
        share = self.agreed / self.ranked if self.ranked else 1.0
        if not share >= limits.top1_agreement_min - _ROUNDING:
            faults.append(
                f"agrees on the best class in {share:.0%}, at least {limits.top1_agreement_min:.0%} is needed"
            )
        return f"output {self.name!r} " + ", and ".join(faults) if faults else None
