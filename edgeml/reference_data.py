"""Makes a bundle's reference from data: one pass, bounded memory, the same data give the same reference."""

from __future__ import annotations

import random
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np

from edgeml.arrays import Array
from edgeml.drift_nulls import class_nulls, drawn_distance, nulls_of
from edgeml.pipeline import Prediction
from edgeml.telemetry.features import input_features, rows_of_array
from edgeml.telemetry.fourier import CLIP, FREQUENCIES, frequencies
from edgeml.telemetry.reference import (
    BINS,
    CONFIDENCE,
    FeatureReference,
    JointReference,
    Reference,
    with_digest,
)
from edgeml.telemetry.report import MOST_CLASSES, OTHER
from edgeml.tensors import TensorSpec

MOST_ROWS: Final = 65_536
"""Kept of any number of samples, each with the same chance (Vitter's algorithm R); 17 MB at most."""
FEWEST_ROWS: Final = 50
"""Of fewer there is no reference: its own error would hide everything."""
PER_BIN: Final = 5
"""Reference values that a bin has at least, ties aside."""
TAILS: Final = (0.001, 0.004, 0.01, 0.02)
"""Shares below the lowest edges, and above the highest: a change of scale shows there first."""
CONFIDENCE_STEP: Final = 1e-4
PAIRS_OF: Final = 512
"""Rows whose distances give the median."""


class ReferenceMaker:
    """Takes samples, and what a model said of them, and gives their reference."""

    def __init__(self, inputs: Sequence[TensorSpec]) -> None:
        self._plan = input_features(inputs)
        self._names = tuple(name for one in self._plan for name in one.names)
        self._rows = _Reservoir(len(self._names))
        self._confidences = _Reservoir(1)
        self._classes: Counter[str] = Counter()

    def add_inputs(self, sample: Mapping[str, Array]) -> None:
        """Take one sample: input name to array, batch dimension included."""
        parts = [rows_of_array(one, sample[one.input]) for one in self._plan]
        for row in zip(*parts, strict=True):
            self._rows.add([value for part in row for value in part])

    def add_answer(self, prediction: Prediction) -> None:
        """Take what the model said; nothing is taken of a model that declares no classes."""
        if prediction.classes:
            best = prediction.best
            self._classes[str(best.index) if best.label is None else best.label] += 1
            self._confidences.add([best.score])

    def reference(self) -> Reference | None:
        """Give the reference; ``None`` if there was too little data, or nothing to count."""
        rows, confidences = self._rows.rows(), self._confidences.rows()
        features = [feature_reference(name, rows[:, place]) for place, name in enumerate(self._names)]
        known = tuple(one for one in features if one is not None)
        classes = _largest(self._classes) if self._classes.total() >= FEWEST_ROWS else {}
        if not known and not classes:
            return None
        made = Reference(
            count=max(self._rows.seen, self._classes.total()),
            features=known,
            classes=classes,
            confidence=confidence_reference(confidences[:, 0]),
            joint=joint_reference(known, rows[:, [self._names.index(one.name) for one in known]]),
        )
        if classes:
            rest = self._classes.total() - sum(count for name, count in classes.items() if name != OTHER)
            counts = (*(classes[name] for name in made.class_names()[:-1]), rest)
            made = replace(made, class_nulls=class_nulls(counts))
        return with_digest(made)


class _Reservoir:
    """Rows of which each that was seen has the same chance to be kept."""

    def __init__(self, columns: int) -> None:
        self._columns = columns
        self._values = array("d")
        self._random = random.Random(0)  # noqa: S311 - no secret; the same data give the same reference
        self.seen = 0

    def add(self, row: Sequence[float]) -> None:
        self.seen += 1
        if self.seen <= MOST_ROWS:
            self._values.extend(row)
            return
        place = self._random.randrange(self.seen)
        if place < MOST_ROWS:
            start = place * self._columns
            self._values[start : start + self._columns] = array("d", row)

    def rows(self) -> Any:
        return (
            np.frombuffer(self._values, np.float64).reshape(-1, self._columns)
            if self._values
            else (np.empty((0, self._columns)))
        )


def feature_reference(name: str, values: Array, *, nulls: bool = True) -> FeatureReference | None:
    """Make the reference of one feature; ``None`` for fewer than ``FEWEST_ROWS`` values that are numbers.

    Args:
        name: of the feature.
        values: any number of them.
        nulls: with the critical values that a device needs; a server draws its own.
    """
    finite = np.sort(values[np.isfinite(values)])
    if len(finite) < FEWEST_ROWS:
        return None
    distinct = np.unique(finite)
    discrete = len(distinct) <= BINS - 2 and len(distinct) * PER_BIN <= len(finite)
    edges = _between(distinct) if discrete else _order_statistics(finite)
    counts = np.bincount(np.searchsorted(edges, values, side="right"), minlength=len(edges) + 1)
    # what is far out would make the unit of everything else
    held = np.clip(finite, edges[0], edges[-1]) if not discrete and len(edges) > 1 else finite
    made = FeatureReference(
        name,
        tuple(edges.tolist()),
        tuple(counts.tolist()),
        float(held.mean()),
        float(held.std()) if len(distinct) > 1 else 0.0,
        discrete,
    )
    return replace(made, nulls=nulls_of(made)) if nulls else made


def confidence_reference(values: Array) -> FeatureReference | None:
    """Make the reference of confidences: its edges stand half-way between multiples of ``CONFIDENCE_STEP``.

    Confidences of a sure model differ in their last bits from machine to machine, which is no drift.
    """
    coarse = feature_reference(CONFIDENCE, np.rint(values / CONFIDENCE_STEP) * CONFIDENCE_STEP, nulls=False)
    if coarse is None:
        return None
    edges = np.array(coarse.edges) if coarse.discrete else np.array(coarse.edges) - CONFIDENCE_STEP / 2
    counts = np.bincount(np.searchsorted(edges, values, side="right"), minlength=len(edges) + 1)
    made = replace(coarse, edges=tuple(edges.tolist()), counts=tuple(counts.tolist()))
    return replace(made, nulls=nulls_of(made))


def _between(distinct: Array) -> Array:
    """Give edges half-way between values, and as far outside the least and the greatest."""
    if len(distinct) == 1:
        reach = max(abs(float(distinct[0])) * 1e-5, 1e-9)
    else:
        reach = float(np.diff(distinct).min()) / 2
    middles = (distinct[:-1] + distinct[1:]) / 2
    middles = np.where(middles > distinct[:-1], middles, distinct[1:])
    return np.unique(np.concatenate([[distinct[0] - reach], middles, [distinct[-1] + reach]]))


def _order_statistics(rising: Array) -> Array:
    """Give edges that are values of the data: finer towards both ends."""
    inner = np.linspace(2 * TAILS[-1], 1 - 2 * TAILS[-1], BINS - 1 - 2 * len(TAILS))
    shares = np.concatenate([TAILS, inner, 1 - np.asarray(TAILS)])
    places = np.unique((np.sort(shares) * len(rising)).astype(int))
    kept: list[int] = []
    for place in places:
        if place - (kept[-1] if kept else 0) >= PER_BIN and len(rising) - place >= PER_BIN:
            kept.append(int(place))
    return np.unique(rising[kept])


def joint_reference(features: Sequence[FeatureReference], rows: Array) -> JointReference | None:
    """Make the reference of all features together; ``None`` if fewer than two vary.

    Args:
        features: of the columns.
        rows: [samples, features].
    """
    varied = [place for place, one in enumerate(features) if one.std > 0]
    chosen = [features[place] for place in varied]
    rows = rows[:, varied]
    rows = rows[~np.isnan(rows).any(1)]
    if len(chosen) < 2 or len(rows) < FEWEST_ROWS:  # noqa: PLR2004 - one alone is no joint distribution
        return None
    mean = np.array([one.mean for one in chosen])
    std = np.array([one.std for one in chosen])
    z = np.clip((rows - mean) / std, -CLIP, CLIP)
    some = z[np.linspace(0, len(z) - 1, min(len(z), PAIRS_OF)).astype(int)]
    pairs = np.sqrt(np.maximum(0, ((some[:, None] - some[None]) ** 2).sum(-1)))
    scale = float(f"{np.median(pairs[np.triu_indices(len(some), 1)]):.6g}") or 1.0
    waves = np.array(frequencies(0, FREQUENCIES, len(chosen), scale))
    sums = np.zeros(2 * FREQUENCIES)
    squares = np.zeros((2 * FREQUENCIES, 2 * FREQUENCIES))
    for start in range(0, len(z), 4096):
        angles = z[start : start + 4096] @ waves.T
        waved = np.concatenate([np.cos(angles), np.sin(angles)], 1)
        sums += waved.sum(0)
        squares += waved.T @ waved
    embedded = sums / len(z)
    covariance = squares / len(z) - np.outer(embedded, embedded)
    spread = np.sqrt(np.maximum(np.diag(covariance), 1e-12))
    spectrum = np.linalg.eigvalsh(covariance / np.outer(spread, spread))[::-1]
    short = tuple(float(f"{value:.6g}") for value in np.maximum(spectrum, 0))
    return JointReference(
        seed=0,
        frequencies=FREQUENCIES,
        scale=scale,
        features=tuple(one.name for one in chosen),
        mean=tuple(float(f"{value:.8g}") for value in embedded),
        std=tuple(float(f"{value:.6g}") for value in spread),
        spectrum=short,
        count=len(z),
        nulls=tuple(float(f"{value:.5g}") for value in drawn_distance(short).critical()),
    )


def _largest(counted: Counter[str]) -> dict[str, int]:
    """Give the classes by their names, rare ones beyond ``MOST_CLASSES`` together as ``other``."""
    most = sorted(counted.most_common(MOST_CLASSES - (len(counted) > MOST_CLASSES)))
    kept = {name: count for name, count in most if name != OTHER}
    rest = counted.total() - sum(kept.values())
    return kept | ({OTHER: rest} if rest else {})
