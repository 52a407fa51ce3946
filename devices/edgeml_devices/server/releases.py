"""Releases: signed manifests whose files are all here, so that devices can be told to run them."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from sqlalchemy import RowMapping, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeml import manifest_json
from edgeml.bundle_checks import check_manifest, manifest_entries
from edgeml.errors import BundleError, ModelFileError
from edgeml.manifest import Manifest
from edgeml_devices.server import audit
from edgeml_devices.server.blobs import BlobStore
from edgeml_devices.server.database import Database
from edgeml_devices.server.refusals import RefusalError, not_found
from edgeml_devices.server.tables import releases as table

if TYPE_CHECKING:
    from edgeml_devices.server.signed.repository import Repository


async def find(connection: AsyncConnection, model: str, release: int) -> RowMapping:
    """Give a listed release's row.

    Raises:
        RefusalError: 404.
    """
    statement = select(table).where(table.c.model == model, table.c.release == release)
    row = (await connection.execute(statement)).mappings().first()
    if row is None:
        raise not_found("release", f"{model}/{release}")
    return row


async def manifest(connection: AsyncConnection, blobs: BlobStore, model: str, release: int) -> Manifest:
    """Give a listed release's manifest.

    Raises:
        RefusalError: 404.
    """
    row = await find(connection, model, release)
    return await asyncio.to_thread(read_manifest, blobs, row["manifest_sha256"], f"{model}/{release}")


def read_manifest(blobs: BlobStore, sha256: str, where: str) -> Manifest:
    """Read a manifest that was uploaded.

    Raises:
        RefusalError: 409: it is not here, or it is none.
    """
    try:
        content = blobs.path(sha256).read_bytes()
        found = manifest_json.loads(content, where)
        check_manifest(found, where)
    except FileNotFoundError as error:
        raise RefusalError(409, f"{where}: its manifest was not uploaded", missing=[sha256]) from error
    except (BundleError, ModelFileError) as error:
        raise RefusalError(409, str(error)) from error
    return found


async def require_deployable(
    connection: AsyncConnection, repository: Repository, model: str, release: int
) -> RowMapping:
    """Give a release's row if devices can be told to run it.

    Raises:
        RefusalError: 404: not listed; 409: withdrawn, or below the floor: devices would refuse it.
    """
    row = await find(connection, model, release)
    if row["withdrawn_at"] is not None:
        raise RefusalError(409, f"{model}/{release} was withdrawn; choose another release")
    floor = await repository.floor(connection, model)
    if release < floor:
        raise RefusalError(409, f"devices refuse releases of {model} below {floor}; choose a newer one")
    return row


async def publish(
    database: Database, repository: Repository, blobs: BlobStore, actor: object, model: str, release: int
) -> tuple[RowMapping, bool]:
    """List a release that was signed and whose files are all here; say whether it is new.

    Raises:
        RefusalError: 404: not signed; 409: blobs are missing (named), or the manifest is of something else.
    """
    async with database.reading() as connection:
        signed = await repository.manifest_sha256(connection, model, release)
        floor = await repository.floor(connection, model)
    if signed is None:
        raise RefusalError(
            404, f"no release {release} of {model} was signed; publish it: edgeml publish BUNDLE"
        )
    if release < floor:
        raise RefusalError(409, f"devices refuse releases of {model} below {floor}; publish a newer one")
    family, sha256 = signed
    size_bytes = await asyncio.to_thread(_check, blobs, sha256, model, release)
    row = {
        "model": model,
        "release": release,
        "family": family,
        "manifest_sha256": sha256,
        "size_bytes": size_bytes,
        "published_at": time.time(),
        "published_by": str(actor)[:128],
    }
    mine = table.c.model == model, table.c.release == release
    async with database.writing() as tx:
        known = (await tx.connection.execute(select(table).where(*mine))).mappings().first()
        if known is not None:
            if known["manifest_sha256"] != sha256:
                raise RefusalError(
                    409, f"{model}/{release} is listed with another manifest; a release never changes"
                )
            return known, False
        await tx.connection.execute(insert(table).values(row))
        await audit.record(tx, actor, "release.publish", f"{model}/{release}", {"manifest_sha256": sha256})
        return await find(tx.connection, model, release), True


def _check(blobs: BlobStore, sha256: str, model: str, release: int) -> int:
    """Check that manifest and files are what they say and all here; give the bytes of all files."""
    where = f"{model}/{release}"
    found = read_manifest(blobs, sha256, where)
    if (found.name, found.release) != (model, release):
        raise RefusalError(409, f"{where}: its manifest is of {found.name}/{found.release}")
    entries = {entry.sha256: entry.size_bytes for entry in manifest_entries(found)}
    missing = [sha256 for sha256, size_bytes in entries.items() if blobs.size_bytes(sha256) != size_bytes]
    if missing:
        raise RefusalError(409, f"{where}: {len(missing)} of its files were not uploaded", missing=missing)
    return sum(entries.values())
