"""Puts a release where a server has what was published: its manifest among the blobs, and a row."""

from __future__ import annotations

import hashlib
from pathlib import Path

from edgeml_devices.server.database import Database
from edgeml_devices.server.tables import releases
from sqlalchemy import insert

from edgeml.manifest_json import dumps
from tests.integration.rollouts.fleet import MODEL, a_manifest


async def publish(database: Database, data: Path, *numbers: int) -> None:
    for number in numbers:
        content = dumps(a_manifest(number))
        sha256 = hashlib.sha256(content).hexdigest()
        place = data / "blobs" / "sha256" / sha256[:2] / sha256
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
        row = {
            "model": MODEL,
            "release": number,
            "family": "audio",
            "manifest_sha256": sha256,
            "size_bytes": 1010,
            "published_at": 0.0,
            "published_by": "admin:ada",
        }
        async with database.writing() as tx:
            await tx.connection.execute(insert(releases).values(row))
