"""Trials: the time that they may take, and how few of them find the least that is enough."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from edgeml.findings import Finding

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Budget:
    """The time that trials may take for all rows together; one that was begun is ended."""

    seconds: float
    began_s: float = field(default_factory=time.monotonic)

    @property
    def spent(self) -> bool:
        """Whether no further trial may begin."""
        return time.monotonic() - self.began_s > self.seconds

    def half(self) -> Budget:
        """Give half of what is left from now on."""
        return Budget((self.seconds - (time.monotonic() - self.began_s)) / 2)

    def finding(self, subject: str, missed: str) -> Finding:
        """Give what tells that a search did not come to its end, and what it may have ``missed``."""
        said = f"the search stopped after {self.seconds:g} s: {missed}"
        return Finding("budget-spent", "warning", subject, said, "give it more time: --budget-s")


@dataclass(frozen=True, slots=True)
class Trials(Generic[T]):
    """What was made in a search for the least count that is enough."""

    made: Mapping[int, T]
    """By count, in the order of the trials."""
    fewest: int | None
    """The least count that is known to be enough; ``None``: none is."""
    ended: bool = True
    """``False``: the budget was spent before, and a lesser count may be enough."""


def fewest_that(
    enough: Callable[[T], bool], make: Callable[[int], T], most: int, budget: Budget
) -> Trials[T]:
    """Make 1, 2, 4, … up to ``most`` until that is enough, and halve down to the least that is.

    Where more never is less, so many trials are about twice the logarithm of the count.
    """
    made: dict[int, T] = {}
    below, above, count = 0, None, 1
    while above is None or above - below > 1:
        if budget.spent:
            return Trials(made, above, ended=False)
        made[count] = make(count)
        if enough(made[count]):
            above = count
        elif count == most:
            break
        else:
            below = count
        count = min(2 * count, most) if above is None else (below + above) // 2
    return Trials(made, above)
