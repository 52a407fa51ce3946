"""The console's telemetry of 1,000 devices on SQLite: what one look costs, however many there are."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from edgeml_devices.server.app import create_app
from edgeml_devices.server.settings import ServerSettings
from edgeml_devices.server.telemetry.store import Incoming

from tests.benchmarks.looks import dear_pages, viewer
from tests.integration.pages.browser import Browser
from tests.integration.pages.fleet import Fleet
from tests.integration.pages.telemetry import publish, reference, window
from tests.integration.telemetry.windows import Telemetry

pytestmark = pytest.mark.anyio
DEVICES, WINDOWS = 1000, 24
EVERY_S = 3600.0
CPU_S = 1.0
PAGE_BYTES = 150_000
PAGES = (
    "/telemetry",
    "/release?model=kws&release=8",
    "/release?model=kws&release=8&span=30d",
    "/devices/d0007",
)


@pytest.fixture
async def browser(tmp_path: Path) -> AsyncIterator[Browser]:
    app = create_app(ServerSettings(tmp_path))
    async with app.router.lifespan_context(app):
        services = app.state.services
        fleet, made = Fleet(services.database), reference()
        for release in (7, 8):
            await publish(fleet, services, release, made)
        ids = await fleet.devices(f"d{number:04d}" for number in range(DEVICES))
        streams = {one: Telemetry() for one in ids}
        begin = fleet.now - WINDOWS * EVERY_S
        for place in range(WINDOWS):
            at = begin + (place + 1) * EVERY_S - 1
            both = tuple(window(made, one, at, latency_s=0.01, shift=one - 7) for one in (7, 8))
            reports = [(one, stream.epoch, stream.next(at, models=both)) for one, stream in streams.items()]
            await services.telemetry.append([Incoming(*one, at, at, "pi") for one in reports])
        async with viewer(app) as browser:
            yield browser


async def test_a_look_at_the_telemetry_of_a_large_fleet_is_bounded(browser: Browser) -> None:
    assert await dear_pages(browser, PAGES, 3, CPU_S, PAGE_BYTES) == {}
