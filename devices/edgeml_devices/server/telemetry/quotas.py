"""How much one device may report: more than any honest one does, and less than what would stop the others."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Final

from edgeml.errors import MessageError
from edgeml.telemetry.report import Batch
from edgeml_devices.server.refusals import RefusalError

MOST_SERIES: Final = 500
"""Models, releases and variants that one device names first, in a day: sums of each are kept for ever."""
BURST_BYTES: Final = 256 << 20
"""What a device may send at once: a spool of many weeks."""
BYTES_PER_S: Final = 20_000
"""… and from then on: 700 times what it needs."""
_ROW_BYTES: Final = 500
"""A report, and each model in it, costs so much besides its bytes."""
_DAY_S: Final = 86400
_LONGEST_WAIT_S: Final = 3600
_Series = tuple[str, str, int, str]


class Quotas:
    """Counts in memory, for one process."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._day = 0.0
        self._known: set[_Series] = set()
        self._named: Counter[str] = Counter()
        self._spent: dict[str, tuple[float, float]] = {}
        """By device: bytes, and when."""

    def check(self, device_id: str, target: str, batch: Batch, size_bytes: int) -> None:
        """Count a batch of so many bytes as they came.

        Raises:
            MessageError: too many names; of which report.
            RefusalError: 429: too much at once; when to come again.
        """
        rows = len(batch.reports) + sum(len(report.models) for report in batch.reports)
        self.spend(device_id, size_bytes + _ROW_BYTES * rows)
        known = self._known
        for report in batch.reports:
            for window in report.models:
                series = (target, window.model, window.release, window.variant)
                if series not in known:
                    self._name(device_id, series, report.seq)

    def _name(self, device_id: str, series: _Series, seq: int) -> None:
        if self._named[device_id] >= MOST_SERIES:
            raise MessageError(
                f"report {seq}: models: a device may name {MOST_SERIES} models, releases and variants a day"
            )
        self._named[device_id] += 1
        self._known.add(series)

    def spend(self, device_id: str, size_bytes: int) -> None:
        """Count bytes.

        Raises:
            RefusalError: 429: too much at once; when to come again.
        """
        now = self._clock()
        if now // _DAY_S != self._day:
            self._begin_day(now)
        left = self._left(self._spent.get(device_id, (0.0, now)), now)
        if left + size_bytes > BURST_BYTES:
            wait_s = min(_LONGEST_WAIT_S, 1 + (left + size_bytes - BURST_BYTES) // BYTES_PER_S)
            raise RefusalError(
                429,
                f"a device may report {BYTES_PER_S} bytes a second in the long run; try again later",
                headers={"Retry-After": f"{wait_s:.0f}"},
            )
        self._spent[device_id] = left + size_bytes, now

    def _begin_day(self, now: float) -> None:
        self._day = now // _DAY_S
        self._known.clear()
        self._named.clear()
        self._spent = {one: spent for one, spent in self._spent.items() if self._left(spent, now)}

    @staticmethod
    def _left(spent: tuple[float, float], now: float) -> float:
        return max(0.0, spent[0] - BYTES_PER_S * max(0.0, now - spent[1]))
