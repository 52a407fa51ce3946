"""From values to pixels: where a value lies on the axis of a picture, and where its marks are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

LOG_SPAN: Final = 10.0
"""Greatest by least value from which an axis that may be logarithmic is."""


@dataclass(frozen=True, slots=True)
class Tick:
    """A mark on an axis."""

    place: float
    text: str


class Axis:
    """One axis, with room for all of its values."""

    def __init__(
        self,
        values: Sequence[float],
        start: float,
        end: float,
        *,
        may_be_log: bool = False,
        highest: float = math.inf,
    ) -> None:
        """Lay an axis out.

        Args:
            values: at least one.
            start: pixel of its lower end.
            end: pixel of its upper end.
            may_be_log: logarithmic where the values span more than :data:`LOG_SPAN`.
            highest: the upper end lies no higher than this value.
        """
        low, high = min(values), max(values)
        self.is_log = may_be_log and low > 0 and high > LOG_SPAN * low
        if not self.is_log:
            room = 0.06 * (high - low) or abs(high) * 0.05 or 1.0
            low, high = max(0.0, low - room) if low >= 0 else low - room, min(highest, high + room)
        self._low, self._high, self._start, self._end = low, high, start, end

    def place(self, value: float) -> float:
        """Give the pixel of a value."""
        low, high = self._low, self._high
        if self.is_log:
            low, high, value = math.log(low), math.log(high), math.log(value)
        return round(self._start + (self._end - self._start) * (value - low) / (high - low), 1)

    def ticks(self, most: int) -> tuple[Tick, ...]:
        """Give round values on the axis."""
        if self.is_log:
            powers = range(math.floor(math.log10(self._low)), math.ceil(math.log10(self._high)) + 1)
            for digits in ((1, 2, 5), (1, 3), (1,)):
                values = [digit * 10.0**power for power in powers for digit in digits]
                values = [value for value in values if self._low <= value <= self._high]
                if len(values) <= most:
                    break
        else:
            step = _round_step((self._high - self._low) / most)
            first = math.ceil(self._low / step)
            values = [step * place for place in range(first, math.floor(self._high / step + 1e-9) + 1)]
        return tuple(Tick(self.place(value), f"{value:.6g}") for value in values)


def _round_step(step: float) -> float:
    power = 10.0 ** math.floor(math.log10(step))
    return next(digit * power for digit in (1, 2, 2.5, 5, 10) if digit * power >= step * (1 - 1e-9))
