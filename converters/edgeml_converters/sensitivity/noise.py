"""The noise that 8 bits add to an activation, channel by channel, as a stream over samples.

One range holds a whole tensor, so a channel of small values that stands beside one of large values is lost
although the tensor as a whole looks sound. What counts is therefore the mean of the channels' ratios of
noise to signal, not the ratio of the sums. Which axis holds the channels follows the layout, which files do
not tell: both the second and the last are tried, and the worse one counts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edgeml.arrays import Array

LEVELS: Final = 255
"""Steps between the lowest and the highest number of 8 bits."""
SQNR_MAX_DB: Final = 120.0
"""About what float32 itself holds."""


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """What static int8 takes from one activation."""

    tensor: str
    sqnr_db: float
    """Signal to rounding error, from the mean of its channels' noise."""
    low: float
    high: float
    """The range that the quantizer gave it."""


class ChannelNoise:
    """Sums of the squared signal and of the squared rounding error of one tensor, by channel."""

    __slots__ = ("_high", "_low", "_sums")

    def __init__(self, low: float, high: float) -> None:
        """Take the range that the tensor is held in; it is widened to hold zero, as quantizers do."""
        self._low, self._high = min(low, 0.0), max(high, 0.0)
        self._sums: dict[int, NDArray[np.float64]] = {}
        """Axis to signal and noise [2, channels]."""

    def add(self, values: Array) -> None:
        """Count one sample's float32 ``values``, whose first axis is the batch."""
        real = values.astype(np.float64)
        squares = np.stack([real**2, (real - self._rounded(real)) ** 2])
        for axis in {1, values.ndim - 1} if values.ndim > 1 else {0}:
            others = tuple(place + 1 for place in range(values.ndim) if place != axis)
            sums = squares.sum(axis=others)
            self._sums[axis] = self._sums[axis] + sums if axis in self._sums else sums

    def sqnr_db(self) -> float:
        """Give signal to noise in dB, from the mean over channels of noise to signal, each at most 1.

        A channel with NaN or infinity is as lost as one can be.
        """
        worst = 0.0
        for signal, noise in self._sums.values():
            seen = signal != 0.0
            if seen.any():
                with np.errstate(invalid="ignore"):
                    share = noise[seen] / signal[seen]
                worst = max(worst, float(np.where(share <= 1.0, share, 1.0).mean()))
        return SQNR_MAX_DB if worst <= 0.0 else min(SQNR_MAX_DB, -10.0 * math.log10(worst))

    def _rounded(self, real: NDArray[np.float64]) -> NDArray[np.float64]:
        step = (self._high - self._low) / LEVELS
        if step <= 0.0:
            return np.zeros_like(real)
        zero = np.rint(-self._low / step)
        held: NDArray[np.float64] = (np.clip(np.rint(real / step) + zero, 0, LEVELS) - zero) * step
        return held
