"""Group commit: requests that came while one commit was made are stored together by the next."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final

from edgeml_devices.server.telemetry.store import Incoming, Stored, TelemetryStore

_LOG: Final = logging.getLogger(__name__)
TOGETHER: Final = 2000
"""Reports of one commit, at most."""
MOST_WAITING: Final = 20_000
"""Reports that wait for a commit; further requests are refused."""


class FullError(Exception):
    """So much waits to be stored that nothing more is taken."""


@dataclass(slots=True)
class _Waiting:
    reports: Sequence[Incoming]
    stored: asyncio.Future[list[Stored]]


class GroupWriter:
    """Takes requests, and stores those that came meanwhile together."""

    def __init__(self, store: TelemetryStore) -> None:
        self._store = store
        self._waiting: list[_Waiting] = []
        self._reports = 0
        self._came = asyncio.Event()

    def submit(self, reports: Sequence[Incoming]) -> asyncio.Future[list[Stored]]:
        """Have the reports of one request stored; the future is done after the commit.

        Raises:
            FullError: too much waits.
        """
        if self._reports >= MOST_WAITING:
            raise FullError
        one = _Waiting(reports, asyncio.get_running_loop().create_future())
        self._waiting.append(one)
        self._reports += len(reports)
        self._came.set()
        return one.stored

    async def run(self) -> None:
        """Store what comes, until cancelled."""
        while True:
            await self._came.wait()
            group = self._take()
            try:
                await self._commit(group)
            finally:
                self._reports -= sum(len(one.reports) for one in group)

    def _take(self) -> list[_Waiting]:
        """Take the next commit's requests, of each stream one: two side by side would be judged as one."""
        group: list[_Waiting] = []
        left: list[_Waiting] = []
        streams: set[tuple[str, str]] = set()
        count = 0
        for place, one in enumerate(self._waiting):
            if count >= TOGETHER:
                left += self._waiting[place:]
                break
            stream = (one.reports[0].device_id, one.reports[0].epoch)
            if stream in streams:
                left.append(one)
                continue
            streams.add(stream)
            group.append(one)
            count += len(one.reports)
        self._waiting = left
        if not left:
            self._came.clear()
        return group

    async def _commit(self, group: Sequence[_Waiting]) -> None:
        try:
            stored = await self._store.append(list(chain.from_iterable(one.reports for one in group)))
        except Exception as error:  # noqa: BLE001 - goes to whoever waits for it
            if len(group) > 1:
                # one of them may be at fault: the others must not suffer for it
                _LOG.warning("%d requests could not be stored together: %s", len(group), error)
                for one in group:
                    await self._commit([one])
            elif not group[0].stored.done():
                group[0].stored.set_exception(error)
            return
        place = 0
        for one in group:
            if not one.stored.done():
                one.stored.set_result(stored[place : place + len(one.reports)])
            place += len(one.reports)
