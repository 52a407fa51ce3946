"""``drift``: windows that devices sent, against the references in the bundles of their releases."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeml.errors import EdgemlError
from edgeml.telemetry.drift import LEVEL
from edgeml.telemetry.reference import Reference, reference_from_json
from edgeml_devices.server import releases
from edgeml_devices.server.blobs import BlobStore
from edgeml_devices.server.database import Database
from edgeml_devices.server.refusals import RefusalError
from edgeml_devices.server.tables import releases as table
from edgeml_devices.server.telemetry.drift import By, DriftFinding, DriftTally
from edgeml_devices.server.telemetry.slow_drift import SlowDriftWatch
from edgeml_devices.server.telemetry.store import Selection, TelemetryStore

_LOG: Final = logging.getLogger(__name__)


class References:
    """The references of all listed releases, by digest. A release never changes: each is read once."""

    def __init__(self, database: Database, blobs: BlobStore) -> None:
        self._database, self._blobs = database, blobs
        self._seen: set[tuple[str, int]] = set()
        self._by_digest: dict[str, Reference] = {}
        self._loading = asyncio.Lock()

    async def load(self) -> dict[str, Reference]:
        """Give what is known now."""
        async with self._loading, self._database.reading() as connection:
            listed = await connection.execute(select(table.c.model, table.c.release))
            for model, release in [(row.model, row.release) for row in listed]:
                if (model, release) not in self._seen:
                    await self._read(connection, model, release)
        return self._by_digest

    async def _read(self, connection: AsyncConnection, model: str, release: int) -> None:
        try:
            manifest = await releases.manifest(connection, self._blobs, model, release)
            found = reference_from_json(manifest.drift)
        except RefusalError as error:
            # its manifest is not here, which a restored server gets again
            _LOG.debug("%s/%d: its reference cannot be read yet: %s", model, release, error)
            return
        except EdgemlError as error:
            _LOG.warning("%s/%d: its reference cannot be read: %s", model, release, error)
            found = None
        self._seen.add((model, release))
        if found is not None:
            self._by_digest[found.digest] = found


async def find_drift(
    store: TelemetryStore, references: References, selection: Selection, by: By, level: float = LEVEL
) -> tuple[tuple[DriftFinding, ...], int]:
    """Judge what lies in a selection.

    Returns:
        What is to be said, the surest drift first, and how many windows had a reference that is not known.
    """
    tally = DriftTally(await references.load(), by)
    async for piece in store.windows(selection):
        await asyncio.to_thread(tally.add, piece)
    return await asyncio.to_thread(tally.findings, level), tally.without_reference


async def watch_slow_drift(
    store: TelemetryStore, references: References, selection: Selection, by: By
) -> SlowDriftWatch:
    """Sum up what lies in a selection, hour by hour."""
    watch = SlowDriftWatch(await references.load(), by)
    async for piece in store.windows(selection):
        await asyncio.to_thread(watch.add, piece)
    return watch
