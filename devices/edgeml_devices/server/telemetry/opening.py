"""Which store a server has: SQLite beside its database, or PostgreSQL in it."""

from __future__ import annotations

from edgeml_devices.server.settings import ServerSettings
from edgeml_devices.server.telemetry.store import TelemetryStore


async def open_store(settings: ServerSettings) -> TelemetryStore:
    """Open the store, and make what is missing.

    Raises:
        ServerError: it was made by a newer version.
    """
    if settings.url.get_backend_name() == "sqlite":
        from edgeml_devices.server.telemetry.sqlite_store import SqliteStore

        return await SqliteStore.open(settings.telemetry)
    from edgeml_devices.server.telemetry.postgresql_store import PostgresqlStore

    url = settings.url.set(drivername="postgresql")
    return await PostgresqlStore.open(url.render_as_string(hide_password=False))
