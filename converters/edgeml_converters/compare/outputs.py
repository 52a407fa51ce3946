"""How far one model's outputs are from another's: max abs, cosine, SQNR, top-1 agreement."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from edgeml.arrays import Array
from edgeml.errors import ConversionError
from edgeml.tensors import TensorSpec

SQNR_OF_EQUAL_DB: Final = 300.0
"""Told where nothing differs; float64 itself ends near 310 dB."""


@dataclass(frozen=True, slots=True)
class OutputComparison:
    """One output of two models over the same samples."""

    name: str
    """In the reference."""
    samples: int
    max_abs: float
    reference_max: float
    """Largest absolute value of the reference: what ``max_abs`` is to be seen against."""
    cosine: float
    """Of all samples taken as one vector."""
    cosine_min: float
    """Of the worst sample."""
    sqnr_db: float
    top1_agreement: float | None
    """Share of samples whose largest value stands in the same place; ``None`` for fewer than two values."""
    nan_samples: int = 0
    """How many samples hold NaN in either model; NaN in the same place of both is left out of the rest."""

    @property
    def relative(self) -> float:
        """``max_abs`` as a share of the reference's largest value."""
        if self.max_abs == 0:
            return 0.0
        return self.max_abs / self.reference_max if self.reference_max else math.inf


class OutputTally:
    """Compares two streams of arrays; memory does not grow with the samples."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._samples = self._agreed = self._nan_samples = self._values = 0
        self._max_abs = self._reference_max = 0.0
        self._dot = self._power = self._other_power = self._error_power = 0.0
        self._cosine_min = 1.0
        self._ranked = False

    def add(self, reference: Array, other: Array) -> None:
        """Take one sample's arrays; they must hold the same number of values.

        Equal infinities are equal. Any other difference of infinities, and NaN in one of the two only, counts
        as infinitely far. NaN in both is left out; outputs of nothing but NaN are as far apart as can be.
        """
        left = reference.reshape(-1).astype(np.float64)
        right = other.reshape(-1).astype(np.float64)
        if left.size != right.size:
            raise ConversionError(
                f"output {self._name!r} holds {right.size} values, that of the source {left.size}"
            )
        self._samples += 1
        if not left.size:
            return
        if left.size > 1:
            self._ranked = True
            has_nan = bool(np.isnan(left).any() or np.isnan(right).any())
            self._agreed += not has_nan and int(left.argmax()) == int(right.argmax())
        either, both = np.isnan(left) | np.isnan(right), np.isnan(left) & np.isnan(right)
        self._nan_samples += bool(either.any())
        self._add_values(left[~both], right[~both])

    def _add_values(self, left: Array, right: Array) -> None:
        if not left.size:
            return
        self._values += left.size
        finite = np.isfinite(left) & np.isfinite(right)
        if bool((left[~finite] != right[~finite]).any()):
            self._max_abs = self._error_power = math.inf
            self._cosine_min = min(self._cosine_min, 0.0)
        left, right = left[finite], right[finite]
        if not left.size:
            return
        error = right - left
        dot, power, other_power = float(left @ right), float(left @ left), float(right @ right)
        self._dot += dot
        self._power += power
        self._other_power += other_power
        self._error_power += float(error @ error)
        self._max_abs = max(self._max_abs, float(np.abs(error).max()))
        self._reference_max = max(self._reference_max, float(np.abs(left).max()))
        self._cosine_min = min(self._cosine_min, _cosine(dot, power, other_power))

    def result(self) -> OutputComparison:
        """Give the comparison over what was added so far."""
        only_nan = self._nan_samples > 0 and self._values == 0
        lost = only_nan or math.isinf(self._error_power)
        return OutputComparison(
            name=self._name,
            samples=self._samples,
            max_abs=math.inf if only_nan else self._max_abs,
            reference_max=self._reference_max,
            cosine=0.0 if lost else _cosine(self._dot, self._power, self._other_power),
            cosine_min=min(self._cosine_min, 0.0) if lost else self._cosine_min,
            sqnr_db=-SQNR_OF_EQUAL_DB if lost else sqnr_db(self._power, self._error_power),
            top1_agreement=self._agreed / self._samples if self._ranked else None,
            nan_samples=self._nan_samples,
        )


class ModelTally:
    """Compares all outputs of two models, under the same names."""

    def __init__(self) -> None:
        self._tallies: dict[str, OutputTally] = {}

    def add(self, reference: Mapping[str, Array], other: Mapping[str, Array]) -> None:
        """Take one sample's outputs of both models."""
        for name, array in other.items():
            self._tallies.setdefault(name, OutputTally(name)).add(reference[name], array)

    def result(self) -> tuple[OutputComparison, ...]:
        """Give a comparison for each output; none before the first sample."""
        return tuple(tally.result() for tally in self._tallies.values())


def compared(
    reference: Iterable[Mapping[str, Array]], other: Iterable[Mapping[str, Array]]
) -> tuple[OutputComparison, ...]:
    """Compare what two models gave for the same samples."""
    tally = ModelTally()
    for left, right in zip(reference, other, strict=True):
        tally.add(left, right)
    return tally.result()


def sqnr_db(power: float, error_power: float) -> float:
    """``10·log10(power / error_power)``, kept within ±``SQNR_OF_EQUAL_DB``."""
    if error_power == 0:
        return SQNR_OF_EQUAL_DB
    if power == 0 or math.isinf(error_power):
        return -SQNR_OF_EQUAL_DB
    value = 10.0 * math.log10(power / error_power)
    return max(-SQNR_OF_EQUAL_DB, min(SQNR_OF_EQUAL_DB, value))


def worst_sqnr_db(outputs: Sequence[OutputComparison]) -> float | None:
    """SQNR of the output that is furthest off; ``None`` if there are none."""
    return min((output.sqnr_db for output in outputs), default=None)


def pair_names(
    source: Sequence[TensorSpec], made: Sequence[TensorSpec], renamed: Mapping[str, str]
) -> tuple[tuple[str, str], ...]:
    """Pair the tensors of two signatures: by ``renamed`` (made name to source name), by name, by place.

    Raises:
        ConversionError: another number of tensors.
    """
    if len(source) != len(made):
        raise ConversionError(
            f"the source has {len(source)} tensors here ({_listed(source)}), "
            f"the result {len(made)} ({_listed(made)})"
        )
    known = {spec.name for spec in source}
    by_source = {renamed.get(spec.name, spec.name): spec.name for spec in made}
    if known == set(by_source):
        return tuple((spec.name, by_source[spec.name]) for spec in source)
    return tuple((left.name, right.name) for left, right in zip(source, made, strict=True))


def _listed(specs: Sequence[TensorSpec]) -> str:
    return ", ".join(str(spec) for spec in specs)


def _cosine(dot: float, power: float, other_power: float) -> float:
    if power == 0 or other_power == 0:
        return 1.0 if power == other_power else 0.0
    return max(-1.0, min(1.0, dot / math.sqrt(power * other_power)))
