"""The server, the fleet and the browsers of the tests that use the console as it is meant to be used."""

from __future__ import annotations

from tests.integration.conftest import (
    app,
    database_url,
    postgres,
    postgres_template,
    server_settings,
    services,
    sqlite_template,
)
from tests.integration.pages.conftest import (
    fleet,
    stranger,
    viewer,
    viewer_token,
)

__all__ = [
    "app",
    "database_url",
    "fleet",
    "postgres",
    "postgres_template",
    "server_settings",
    "services",
    "sqlite_template",
    "stranger",
    "viewer",
    "viewer_token",
]
