"""Real servers on both databases for those who attack telemetry."""

from __future__ import annotations

from tests.integration.conftest import (
    database_url,
    postgres,
    postgres_template,
    server,
    sqlite_template,
)

__all__ = ["database_url", "postgres", "postgres_template", "server", "sqlite_template"]
