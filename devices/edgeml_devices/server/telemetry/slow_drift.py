"""Small drift that lasts, over a fleet's windows: the device's CUSUM, hour by hour, all groups at once.

A step of the sum is linear in the counts, so windows of an hour are added up exactly and make one step; what
a question costs beyond reading them is a few milliseconds for each hour.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from edgeml.telemetry.cusum import ALARM, DIRECTIONS, HIGHEST, step_weights
from edgeml.telemetry.reference import Reference
from edgeml_devices.server.telemetry.drift import By, Group, flat_counts, group_of
from edgeml_devices.server.telemetry.selecting import hour_of, microseconds
from edgeml_devices.server.telemetry.store import WindowRow

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_GROUPS: Final = 4096
"""That are watched in one question; each takes 4 kB, and 9 kB while its hour is added up."""


@dataclass(frozen=True, slots=True)
class SlowDrift:
    """One feature of one group left its reference, in one direction."""

    group: Group
    feature: str
    direction: str
    """``up``, ``down``, ``wider`` or ``narrower``."""
    since: float
    """About when it began, the last time."""
    at: float
    """End of the windows with which it was sure."""
    lasts: bool
    """Whether it was still so at the end."""


@dataclass(slots=True)
class _Hour:
    """What a group counted in the hour that is being added up."""

    begins: float
    ends: float
    counts: NDArray[np.int64]


class _Sums:
    """Of all groups with one reference: arrays of [groups, features x directions]."""

    def __init__(self, reference: Reference) -> None:
        self.reference = reference
        self.weights = [np.array(step_weights(one.counts)).T for one in reference.counted()]
        """Of each feature: what a value in each bin adds to each of its sums."""
        self.places: dict[Group, int] = {}
        self.hour: dict[int, _Hour] = {}
        self.steps = 0
        self.values, self.since, self.told_since, self.told_at = (np.zeros((0, 0)) for _ in range(4))

    def count(self, place: int, row: WindowRow, counts: NDArray[np.int64]) -> None:
        hour = self.hour.get(place)
        if hour is None:
            self.hour[place] = _Hour(row.at - row.seconds, row.at, counts)
        else:
            hour.begins = min(hour.begins, row.at - row.seconds)
            hour.ends = max(hour.ends, row.at)
            hour.counts += counts

    def close_hour(self) -> None:
        """Make one step of each group that counted something."""
        if not self.hour:
            return
        self._grow()
        places = np.fromiter(self.hour, np.intp)
        begins, ends = (
            np.array([getattr(one, name) for one in self.hour.values()])[:, None]
            for name in ("begins", "ends")
        )
        steps = self._steps(np.stack([one.counts for one in self.hour.values()]))
        self.hour = {}
        self.steps += steps.size
        old = self.values[places]
        since = np.where(old <= 0, begins, self.since[places])
        values = np.clip(old + steps, 0, HIGHEST)
        is_new = (old < ALARM) & (values >= ALARM) & (since != self.told_since[places])
        self.values[places], self.since[places] = values, since
        self.told_since[places] = np.where(is_new, since, self.told_since[places])
        self.told_at[places] = np.where(is_new, ends, self.told_at[places])

    def _steps(self, counts: NDArray[np.int64]) -> NDArray[np.float64]:
        starts = np.cumsum([len(one) for one in self.weights])[:-1]
        parts = np.split(counts, starts, axis=1)
        return np.hstack([part @ one for part, one in zip(parts, self.weights, strict=True)])

    def _grow(self) -> None:
        have, need = len(self.values), len(self.places)
        if need <= have:
            return
        width = len(self.weights) * len(DIRECTIONS)
        rows = max(need, 2 * have)
        for name, fill in (("values", 0.0), ("since", 0.0), ("told_since", math.nan), ("told_at", math.nan)):
            larger = np.full((rows, width), fill)
            larger[:have] = getattr(self, name).reshape(have, width)
            setattr(self, name, larger)

    def found(self) -> Iterable[SlowDrift]:
        groups = list(self.places)
        for place, column in np.argwhere(~np.isnan(self.told_at)).tolist():
            yield SlowDrift(
                groups[place],
                self.reference.counted()[column // len(DIRECTIONS)].name,
                DIRECTIONS[column % len(DIRECTIONS)],
                float(self.told_since[place, column]),
                float(self.told_at[place, column]),
                bool(self.values[place, column] >= ALARM),
            )


class SlowDriftWatch:
    """Sums windows up as they come, by group: rows in order of time."""

    def __init__(
        self, references: Mapping[str, Reference], by: By = "device", most_groups: int = MOST_GROUPS
    ) -> None:
        """Begin with nothing.

        Args:
            references: by digest.
            by: what is watched by itself.
            most_groups: of those that come first; windows of others are left aside.
        """
        self._sums = {digest: _Sums(one) for digest, one in references.items() if one.counted()}
        self._known = frozenset(references)
        self._by = by
        self._most_groups = most_groups
        self._hour: int | None = None
        self.without_reference = 0
        """Windows that carried counts for a reference that is not known."""
        self.left_aside = 0
        """Windows of groups beyond the most."""

    @property
    def groups(self) -> int:
        """How many are watched."""
        return sum(len(one.places) for one in self._sums.values())

    @property
    def false_alarms_at_most(self) -> float:
        """How many there are in the mean if nothing drifts: a step of a sum, and each gives one in 10^8."""
        return sum(one.steps for one in self._sums.values()) * math.exp(-ALARM)

    def add(self, rows: Iterable[WindowRow]) -> None:
        """Count windows in."""
        for row in rows:
            hour = hour_of(microseconds(row.at))
            if hour != self._hour:
                self._close_hour()
                self._hour = hour
            self._add(row)

    def found(self) -> tuple[SlowDrift, ...]:
        """Give what became sure, by feature and direction of a group: what lasts first, by its beginning."""
        self._close_hour()
        found = [drift for one in self._sums.values() for drift in one.found()]
        return tuple(
            sorted(found, key=lambda one: (not one.lasts, one.since, one.group, one.feature, one.direction))
        )

    def _add(self, row: WindowRow) -> None:
        sums = self._sums.get(row.window.reference)
        if sums is None:
            unknown = row.window.reference not in self._known
            self.without_reference += unknown and bool(row.window.features or row.window.rff_count)
            return
        counts = flat_counts(sums.reference, row.window)
        if not counts.any():
            return
        group = group_of(row, self._by)
        place = sums.places.get(group)
        if place is None:
            if self.groups >= self._most_groups:
                self.left_aside += 1
                return
            place = sums.places[group] = len(sums.places)
        sums.count(place, row, counts)

    def _close_hour(self) -> None:
        for one in self._sums.values():
            one.close_hour()
