"""The console with 10,000 devices on SQLite: what one look at each page costs the server."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from itertools import product
from pathlib import Path

import pytest
from edgeml_devices.server.app import create_app
from edgeml_devices.server.rollouts.policy import Gates, Policy, Wave
from edgeml_devices.server.settings import ServerSettings
from edgeml_devices.server.tables import assignments, statuses

from tests.benchmarks.looks import dear_pages, viewer
from tests.integration.pages.browser import Browser
from tests.integration.pages.fleet import Fleet

pytestmark = pytest.mark.anyio
DEVICES = 10_000
CPU_S = 0.2
PAGE_BYTES = 100_000
PAGES = (
    "",
    "/devices",
    "/devices?selector=site%3Dlyon,ring%20in%20(a,b)",
    "/devices?runs=kws/9&state=PROBATION",
    "/devices?after=d09900",
    "/devices/d00007",
    "/releases",
    "/rollouts",
    "/rollouts/r1",
    "/audit",
)


@pytest.fixture
async def browser(tmp_path: Path) -> AsyncIterator[Browser]:
    app = create_app(ServerSettings(tmp_path))
    async with app.router.lifespan_context(app):
        await fill(Fleet(app.state.services.database))
        async with viewer(app) as browser:
            yield browser


async def fill(fleet: Fleet) -> None:
    chance = random.Random(1)  # noqa: S311 - a fleet, no keys
    ids = []
    for site, ring in product(("berlin", "lyon", "porto", "oslo"), "abcde"):
        begin = len(ids)
        names = (f"d{number:05d}" for number in range(begin, begin + DEVICES // 20))
        ids += await fleet.devices(names, labels={"site": site, "ring": ring, "customer": "acme"})
    for model in ("kws", "occupancy"):
        for number in range(1, 10):
            await fleet.release(model, number)
        reported = {"model": model, "attempt": 1, "detail": "", "ready": False, "reported_at": fleet.now}
        running = [
            {
                "device_id": one,
                "running": chance.choice((8, 9)),
                "state": chance.choice(("IDLE", "PROBATION")),
            }
            for one in ids
        ]
        await fleet.add(statuses, *(reported | row for row in running))
        desired = {"model": model, "release": 9, "attempt": 1, "hold": False, "on_abort": "finish"}
        await fleet.add(assignments, *(desired | {"device_id": one, "changed_at": fleet.now} for one in ids))
    await fleet.events(ids[7], 2000)
    rules = Policy("kws", 9, selector="", waves=(Wave(percent=10.0), Wave(percent=100.0)), gates=Gates(1.1))
    await fleet.rollout("r1", rules, state="READY")
    await fleet.wave(
        "r1", 1, {"SUCCEEDED": ids[:900], "FAILED:latency": ids[900:950], "ASSIGNED": ids[950:1000]}
    )
    await fleet.members("r1", 2, {"WAITING": ids[1000:]})


async def test_a_look_at_any_page_is_cheap(browser: Browser) -> None:
    assert await dear_pages(browser, PAGES, 5, CPU_S, PAGE_BYTES) == {}
