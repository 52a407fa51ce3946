"""How long questions take on a month of a thousand devices, while reports go on coming."""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from edgeml_devices.server.settings import ServerSettings
from edgeml_devices.server.telemetry.opening import open_store
from edgeml_devices.server.telemetry.questions import Question, dimensions, quantiles
from edgeml_devices.server.telemetry.store import Incoming, Selection, TelemetryStore

from edgeml.telemetry.report import Report
from tests.integration.telemetry.windows import Telemetry

pytestmark = pytest.mark.anyio
DEVICES, DAYS = 1000, 30
HOUR_S = 3600
PATTERNS = 50
MEDIAN_OF = 7
LAST_HOUR_S, WEEK_S = 0.050, 0.200


async def test_questions_of_a_dashboard_are_quick_while_reports_come(tmp_path: Path) -> None:
    store = await open_store(ServerSettings(tmp_path))
    rolling = asyncio.create_task(store.run())
    now = time.time() // HOUR_S * HOUR_S + 1800
    await fill(store, now)
    by_device = Question(Selection(now - HOUR_S, now), dimensions(["device"]))
    by_hour = Question(Selection(now - 7 * 86400, now), dimensions(["hour"]))
    async with ingesting(store, now):
        last_hour_s, answers = await timed(lambda: quantiles(store, by_device, [0.95]))
        week_s, hours = await timed(lambda: quantiles(store, by_hour, [0.99]))
    print(
        f"\np95 by device, last hour: {last_hour_s * 1e3:.0f} ms ({len(answers)} devices); "
        f"p99 of the fleet by hour, a week: {week_s * 1e3:.0f} ms ({len(hours)} hours)"
    )
    rolling.cancel()
    with suppress(asyncio.CancelledError):
        await rolling
    await store.close()
    assert len(answers) == DEVICES
    assert len(hours) >= 7 * 24
    assert last_hour_s <= LAST_HOUR_S
    assert week_s <= WEEK_S


async def timed(ask: Callable[[], Awaitable[list[Any]]]) -> tuple[float, list[Any]]:
    found, times_s = await ask(), []
    for _ in range(MEDIAN_OF):
        begun = time.perf_counter()
        found = await ask()
        times_s.append(time.perf_counter() - begun)
        await asyncio.sleep(0.05)
    return statistics.median(times_s), found


async def fill(store: TelemetryStore, now: float) -> None:
    """A window of an hour for each device and hour."""
    streams = [Telemetry(random.Random(number)) for number in range(DEVICES)]  # noqa: S311 - made-up data
    patterns = [streams[0].next(0.0).models for _ in range(PATTERNS)]
    streams[0].seq, streams[0].prev = -1, ""
    for hour in range(DAYS * 24, -1, -1):
        at = now - hour * HOUR_S
        batch = [
            incoming(stream, number, at, replace(patterns[(number + hour) % PATTERNS][0], samples=()))
            for number, stream in enumerate(streams)
        ]
        await store.append(batch)
    # pruning nothing: hours are added up until none is left, as they were long ago on a server that ran
    await store.prune(0.0, 0.0)


def incoming(stream: Telemetry, number: int, at: float, window: Any) -> Incoming:
    stream.seq += 1
    link = f"{number:08x}{stream.seq:08x}"
    start_s = stream.seq * float(HOUR_S)
    report = Report(
        stream.seq,
        link,
        stream.boot_id,
        start_s,
        start_s + HOUR_S,
        at,
        stream.prev,
        clock="synced",
        models=(window,),
    )
    stream.prev = link
    return Incoming(f"device-{number:04}", stream.epoch, report, at, at, ("pi-4", "pi-5")[number % 2])


@asynccontextmanager
async def ingesting(store: TelemetryStore, now: float) -> AsyncIterator[None]:
    """Let 500 reports a second come: thirty thousand devices."""

    async def go_on() -> None:
        streams = [Telemetry(random.Random(-number)) for number in range(1, 251)]  # noqa: S311 - made-up data
        window = replace(streams[0].next(0.0).models[0], samples=())
        streams[0].seq, streams[0].prev = -1, ""
        while True:
            begun = time.perf_counter()
            await store.append(
                [
                    incoming(stream, 5000 + place, now - 2 * HOUR_S, window)
                    for place, stream in enumerate(streams)
                ]
            )
            await asyncio.sleep(max(0.0, 0.5 - (time.perf_counter() - begun)))

    task = asyncio.create_task(go_on())
    await asyncio.sleep(1)
    yield
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
