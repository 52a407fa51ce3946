"""Small drift that lasts, over a fleet's windows: the device's CUSUM, all features of a window at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgeml.telemetry.cusum import ALARM, DIRECTIONS, step_weights
from edgeml.telemetry.reference import Reference
from edgeml_devices.server.telemetry.drift import By, Group, flat_counts, group_of
from edgeml_devices.server.telemetry.store import WindowRow

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class SlowDrift:
    """One feature of one group left its reference, in one direction."""

    group: Group
    feature: str
    direction: str
    """``up``, ``down``, ``wider`` or ``narrower``."""
    since: float
    """About when it began."""
    at: float
    """End of the window in which it was sure."""


@dataclass(slots=True)
class _Sums:
    values: NDArray[np.float64]
    """[features, directions]"""
    since: NDArray[np.float64]
    alarmed: NDArray[np.bool_]


class SlowDriftWatch:
    """Sums windows up as they come, by group: rows in order of time."""

    def __init__(self, references: Mapping[str, Reference], by: By = "device") -> None:
        self._references = references
        self._by = by
        self._weights = {digest: _weights(reference) for digest, reference in references.items()}
        self._groups: dict[Group, _Sums] = {}

    def add(self, rows: Iterable[WindowRow]) -> tuple[SlowDrift, ...]:
        """Add windows; gives what became sure with them, each feature and direction of a group once."""
        return tuple(alarm for row in rows for alarm in self._add(row))

    def _add(self, row: WindowRow) -> Iterable[SlowDrift]:
        reference = self._references.get(row.window.reference)
        if reference is None or not reference.counted():
            return
        group = group_of(row, self._by)
        steps = (self._weights[reference.digest] @ flat_counts(reference, row.window)).reshape(
            -1, len(DIRECTIONS)
        )
        sums = self._groups.get(group)
        if sums is None:
            empty = np.zeros_like(steps)
            sums = self._groups[group] = _Sums(empty, empty.copy(), empty.astype(bool))
        sums.since[sums.values <= 0] = row.at - row.seconds
        sums.values = np.maximum(0, sums.values + steps)
        new = (sums.values >= ALARM) & ~sums.alarmed
        sums.alarmed |= new
        for place, direction in np.argwhere(new).tolist():
            yield SlowDrift(
                group,
                reference.counted()[place].name,
                DIRECTIONS[direction],
                float(sums.since[place, direction]),
                row.at,
            )


def _weights(reference: Reference) -> NDArray[np.float64]:
    """Give what each count adds to each sum: [features x directions, bins of all features]."""
    blocks = [np.array(step_weights(one.counts)) for one in reference.counted()]
    weights = np.zeros((sum(len(one) for one in blocks), sum(one.shape[1] for one in blocks)))
    row = column = 0
    for one in blocks:
        weights[row : row + len(one), column : column + one.shape[1]] = one
        row, column = row + len(one), column + one.shape[1]
    return weights
