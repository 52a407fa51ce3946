"""Looks at pages of the console, and what each costs the server."""

from __future__ import annotations

import statistics
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from edgeml_devices.server.auth import make_token
from fastapi import FastAPI

from tests.integration.pages.browser import Browser


@asynccontextmanager
async def viewer(app: FastAPI) -> AsyncIterator[Browser]:
    """Somebody who is signed in as a viewer."""
    async with app.state.services.database.writing() as transaction:
        _, token = await make_token(transaction, "server", "ada", "viewer")
    browser = Browser(app)
    async with browser.client:
        await browser.sign_in(token)
        yield browser


async def dear_pages(
    browser: Browser, pages: Sequence[str], looks: int, cpu_s: float, page_bytes: int
) -> dict[str, tuple[float, int]]:
    """Open pages below ``/console`` a few times; give those whose median cost or size is above the limits."""
    dear = {}
    for page in pages:
        costs = []
        for _ in range(looks):
            begun = time.process_time()
            shown = await browser.open(f"/console{page}")
            costs.append(time.process_time() - begun)
            assert shown.status == 200, page
        cost, size = statistics.median(costs), len(shown.html)
        print(f"/console{page}: {1000 * cost:.0f} ms of CPU, {size / 1000:.0f} kB")
        if cost > cpu_s or size > page_bytes:
            dear[page] = (cost, size)
    return dear
