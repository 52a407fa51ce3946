"""Counts what one release does in one process, at a cost that a call does not feel."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from time import perf_counter_ns
from typing import Any, Final, TypeVar

import numpy as np

from edgeml.errors import InputError
from edgeml.histogram import BUCKETS_PER_DOUBLING, HIGHEST, LOWEST, Histogram
from edgeml.model import Loaded

T = TypeVar("T")
_NS_PER_MS: Final = 1e6


class Tally:
    """Calls, errors and latencies of one release. Calls only append; ``drain`` counts, in one thread."""

    __slots__ = ("_failures", "_times_ns", "calls", "detail", "errors", "latencies", "release", "variant")

    def __init__(self, release: int) -> None:
        self.release = release
        self.variant = ""
        """The last that was loaded."""
        self.latencies = Histogram()
        """Milliseconds of calls that succeeded."""
        self.calls = 0
        self.errors = 0
        """Calls that failed, other than by what the caller passed."""
        self.detail = ""
        """Of the last error."""
        self._times_ns: deque[int] = deque()
        self._failures: deque[str] = deque()

    def counted(self, plain: Loaded) -> Loaded:
        """Give the same artifact with calls that are counted."""
        run = _counted(plain.run, self._times_ns.append, self._failures.append)
        call = _counted(plain.call, self._times_ns.append, self._failures.append)
        return replace(plain, run=run, call=call)

    def drain(self) -> None:
        """Count what was appended so far."""
        waiting = len(self._times_ns)
        if waiting:
            taken = (self._times_ns.popleft() for _ in range(waiting))
            add_times(self.latencies, np.fromiter(taken, np.float64, waiting))
        failed = [self._failures.popleft() for _ in range(len(self._failures))]
        if failed:
            self.detail = failed[-1]
        self.errors += len(failed)
        self.calls += waiting + len(failed)


def add_times(histogram: Histogram, times_ns: np.ndarray[Any, Any]) -> None:
    """Count times in nanoseconds, as :meth:`Histogram.add` counts each."""
    doublings = np.log2(np.maximum(times_ns, 1) / _NS_PER_MS)
    places = np.clip(np.ceil(doublings * BUCKETS_PER_DOUBLING) - 1, LOWEST, HIGHEST)
    found, counts = np.unique(places.astype(np.int64), return_counts=True)
    histogram.merge(Histogram(dict(zip(found.tolist(), counts.tolist(), strict=True))))


def _counted(
    call: Callable[[Any], T], succeeded: Callable[[int], None], failed: Callable[[str], None]
) -> Callable[[Any], T]:
    def counted(given: Any) -> T:
        begun = perf_counter_ns()
        try:
            result = call(given)
        except InputError:
            raise
        except Exception as error:
            failed(f"{type(error).__name__}: {error}")
            raise
        succeeded(perf_counter_ns() - begun)
        return result

    return counted
