"""A fleet to look at, and people who look."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.integration.pages.browser import Browser
from tests.integration.pages.fleet import Fleet

if TYPE_CHECKING:
    from edgeml_devices.server.services import Services
    from edgeml_devices.server.settings import ServerSettings
    from fastapi import FastAPI


@pytest.fixture
def server_settings(server_settings: ServerSettings) -> ServerSettings:
    """Rows of rollouts are put there to be shown: the server's ticks would move them on meanwhile."""
    return replace(server_settings, tick_s=3600.0)


@pytest.fixture
def fleet(services: Services) -> Fleet:
    return Fleet(services.database)


@pytest.fixture
async def viewer_token(services: Services) -> str:
    from edgeml_devices.server.auth import make_token

    async with services.database.writing() as transaction:
        return (await make_token(transaction, "server", "ada", "viewer"))[1]


@pytest.fixture
async def stranger(app: FastAPI) -> AsyncIterator[Browser]:
    """Somebody who is not signed in."""
    browser = Browser(app)
    async with browser.client:
        yield browser


@pytest.fixture
async def viewer(app: FastAPI, viewer_token: str) -> AsyncIterator[Browser]:
    """Somebody who signed in with a viewer's token."""
    browser = Browser(app)
    async with browser.client:
        shown = await browser.sign_in(viewer_token)
        assert shown.path == "/console", shown
        yield browser
