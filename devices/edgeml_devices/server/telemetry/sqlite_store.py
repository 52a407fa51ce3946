"""Telemetry in SQLite: a file for each day, a thread that writes, one that adds up hours, some that read."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from edgeml_devices.server.telemetry import day_files, sqlite_points, sqlite_reading, sqlite_summing
from edgeml_devices.server.telemetry.dating import AHEAD_S
from edgeml_devices.server.telemetry.selecting import HOUR_US, bounds_us
from edgeml_devices.server.telemetry.sqlite_rolling import Roller
from edgeml_devices.server.telemetry.sqlite_writing import DayWriter
from edgeml_devices.server.telemetry.store import (
    Coverage,
    HourRow,
    Incoming,
    Point,
    SampleRow,
    Selection,
    Stored,
    SystemRow,
    TotalRow,
    WindowRow,
)

_LOG: Final = logging.getLogger(__name__)
_READERS: Final = 4
_ROLL_S: Final = 2.0
_IDLE_S: Final = 30.0
T = TypeVar("T")


class SqliteStore:
    """The store in a folder. One process at a time."""

    def __init__(self, folder: Path, clock: Callable[[], float]) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = folder
        self._clock = clock
        self._writer = DayWriter(folder)
        self._writer.move_to(day_files.day_of(clock()))
        self._roller = Roller(folder)
        self._writing = ThreadPoolExecutor(1, "telemetry-writer")
        self._rolling = ThreadPoolExecutor(1, "telemetry-hours")
        self._reading = ThreadPoolExecutor(_READERS, "telemetry-reader")
        self._kept_us = self._roller.kept_us()
        self._appended_at = time.monotonic()

    @classmethod
    async def open(cls, folder: Path, clock: Callable[[], float] = time.time) -> SqliteStore:
        """Make the folder and today's file, if need be.

        Raises:
            ServerError: the files are of a newer version.
        """
        return await asyncio.to_thread(cls, folder, clock)

    async def append(self, incoming: Sequence[Incoming]) -> list[Stored]:
        if not incoming:
            return []
        self._appended_at = time.monotonic()
        return await _in(self._writing, self._writer.append, incoming, day_files.day_of(self._clock()))

    def windows(self, selection: Selection) -> AsyncIterator[Sequence[WindowRow]]:
        return self._stepwise(sqlite_reading.windows(self._folder, selection, self._kept_us))

    def system(self, selection: Selection) -> AsyncIterator[Sequence[SystemRow]]:
        return self._stepwise(sqlite_reading.system(self._folder, selection, self._kept_us))

    async def hours(self, selection: Selection, *, by_device: bool) -> Sequence[HourRow]:
        asked = partial(sqlite_summing.hours, self._folder, selection, by_device=by_device)
        return await _in(self._reading, asked)

    async def totals(self) -> Sequence[TotalRow]:
        return await _in(self._reading, sqlite_summing.totals, self._folder)

    async def samples(self, selection: Selection, limit: int) -> Sequence[SampleRow]:
        return await _in(self._reading, sqlite_reading.samples, self._folder, selection, limit, self._kept_us)

    async def coverage(self, selection: Selection) -> Sequence[Coverage]:
        return await _in(self._reading, sqlite_reading.coverage, self._folder, selection, self._kept_us)

    async def append_points(self, points: Sequence[Point]) -> None:
        await _in(self._rolling, sqlite_points.append, self._folder, points)

    async def points(self, name: str, since: float, until: float, limit: int) -> Sequence[Point]:
        bounds = bounds_us(Selection(since, until))
        return await _in(self._reading, sqlite_points.read, self._folder, name, *bounds, limit)

    async def prune(self, keep_from: float, keep_hours_from: float) -> None:
        keep_us, _ = bounds_us(Selection(keep_from, keep_from))
        while await _in(self._rolling, self._roller.roll):
            pass
        # the newest file has the streams
        await _in(self._writing, self._writer.move_to, day_files.day_of(self._clock()))
        await _in(self._rolling, self._roller.keep_from, keep_us)
        self._kept_us = max(self._kept_us, keep_us)
        for day in day_files.days_of(self._folder):
            if day < min(self._writer.day, day_files.day_of(keep_from - AHEAD_S)):
                await _in(self._writing, _remove, day_files.file_of(self._folder, day))
                await _in(self._rolling, self._roller.forget_day, day)
        await _in(self._rolling, sqlite_points.prune, self._folder, keep_us)
        hour = bounds_us(Selection(keep_hours_from, keep_hours_from))[0] // HOUR_US
        await _in(self._rolling, self._roller.forget_hours, hour)

    async def run(self) -> None:
        """Add up hours, and give space of the logs back when nothing comes, until cancelled."""
        truncated_at = 0.0
        while True:
            await asyncio.sleep(_ROLL_S)
            try:
                while await _in(self._rolling, self._roller.roll):
                    pass
                idle_s = time.monotonic() - self._appended_at
                if idle_s > _IDLE_S and truncated_at < self._appended_at:
                    truncated_at = time.monotonic()
                    await _in(self._writing, self._writer.truncate_wal)
                    await _in(self._rolling, self._roller.truncate_wal)
            except Exception:  # noqa: BLE001 - the next turn tries again
                _LOG.exception("hourly sums could not be kept")

    async def close(self) -> None:
        await _in(self._writing, self._writer.close)
        await _in(self._rolling, self._roller.close)
        for executor in (self._writing, self._rolling, self._reading):
            executor.shutdown()

    async def _stepwise(self, pieces: Generator[T]) -> AsyncIterator[T]:
        """Give what a generator gives; it runs in a reader's thread."""
        end = object()
        try:
            while (piece := await _in(self._reading, next, pieces, end)) is not end:
                yield piece
        finally:
            await _in(self._reading, pieces.close)


async def _in(executor: ThreadPoolExecutor, work: Callable[..., T], *arguments: object) -> T:
    return await asyncio.get_running_loop().run_in_executor(executor, work, *arguments)


def _remove(file: Path) -> None:
    for name in (file, file.with_name(f"{file.name}-wal"), file.with_name(f"{file.name}-shm")):
        name.unlink(missing_ok=True)
