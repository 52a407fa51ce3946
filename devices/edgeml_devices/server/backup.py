"""Back-up and restore: one file with tables, blobs and the server's keys, from any database to any other.

Devices remember the highest versions and generations that they saw. So a restored server goes on far above
those of the back-up: else devices would refuse what it signs, and an old ETag could stand for something new.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import json
import os
import shutil
import tarfile
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, LargeBinary, MetaData, Table, func, insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

import edgeml
from edgeml.atomic import new_file
from edgeml.errors import MessageError, ServerError, UsageError
from edgeml_devices.server import audit, tables
from edgeml_devices.server.alerts import tables as _alerts  # noqa: F401 - on METADATA, too
from edgeml_devices.server.blobs import HASH, BlobStore
from edgeml_devices.server.database import Database, pieces
from edgeml_devices.server.migrate import migrate_within
from edgeml_devices.server.rollouts import tables as _rollouts  # noqa: F401 - on METADATA, too
from edgeml_devices.server.settings import ServerSettings
from edgeml_devices.server.signed.online_keys import OnlineKeys
from edgeml_devices.server.signed.repository import Repository
from edgeml_devices.server.tables import METADATA
from edgeml_devices.server.telemetry import copying
from edgeml_devices.server.transaction import Transaction

SCHEMA: Final = 1
AHEAD: Final = 1_000_000
"""How far a restored server's generations and versions jump."""
_HEADER: Final = "backup.json"
_ROWS: Final = 500


@dataclass(frozen=True, slots=True)
class Restored:
    """What a restore did."""

    created_at: float
    rows: int
    blobs: int
    roles: tuple[str, ...]
    """Offline roles: whatever was signed after the back-up has to be pushed again."""
    join_tokens: int
    """Revoked here: they may have been used up or revoked after the back-up."""
    telemetry: bool | None
    """Whether it was restored; ``None``: there was none in the back-up."""


async def back_up(settings: ServerSettings, file: Path, *, telemetry: bool = False) -> int:
    """Write a back-up, whole or not at all, while the server goes on; give its size in bytes."""
    database = await Database.reach(settings.url)
    try:
        async with database.reading() as connection:
            if database.dialect == "postgresql":
                await connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"))
            with new_file(file) as target:
                os.fchmod(target.fileno(), 0o600)
                # no name inside says more than it has to
                with tarfile.open(fileobj=target, mode="w") as archive:
                    await _write_tables(connection, archive)
                    # after the tables: what they name was there before they were read
                    await asyncio.to_thread(_write_files, settings, archive)
                    if telemetry:
                        await _write_telemetry(settings, archive)
                return target.tell()
    finally:
        await database.close()


async def _write_tables(connection: AsyncConnection, archive: tarfile.TarFile) -> None:
    step = await connection.run_sync(lambda sync: MigrationContext.configure(sync).get_current_revision())
    if step is None:
        raise UsageError(
            "there are no tables to back up; is this the server's database (--data, --database)?"
        )
    header = {"schema": SCHEMA, "edgeml": edgeml.__version__, "step": step, "created_at": time.time()}
    _add(archive, _HEADER, json.dumps(header).encode())
    for table in METADATA.sorted_tables:
        with tempfile.TemporaryFile() as rows:
            async with connection.stream(select(table)) as result:
                async for row in result.mappings():
                    line = json.dumps(_to_json(table, row), separators=(",", ":"), ensure_ascii=False)
                    rows.write(line.encode() + b"\n")
            info = _info(f"tables/{table.name}.jsonl", rows.tell())
            rows.seek(0)
            archive.addfile(info, rows)


def _write_files(settings: ServerSettings, archive: tarfile.TarFile) -> None:
    for path in sorted(settings.keys.glob("*")) if settings.keys.is_dir() else ():
        _add(archive, f"keys/{path.name}", path.read_bytes())
    for path in sorted(settings.blobs.glob("*/*")) if settings.blobs.is_dir() else ():
        if HASH.fullmatch(path.name):
            with path.open("rb") as blob:
                archive.addfile(_info(f"blobs/{path.name}", path.stat().st_size), blob)


async def _write_telemetry(settings: ServerSettings, archive: tarfile.TarFile) -> None:
    is_sqlite = settings.url.get_backend_name() == "sqlite"
    kind = copying.FILES if is_sqlite else copying.TABLES

    def take(name: str, content: IO[bytes]) -> None:
        size_bytes = content.seek(0, os.SEEK_END)
        content.seek(0)
        archive.addfile(_info(f"{kind}/{name}", size_bytes), content)

    if is_sqlite:
        await asyncio.to_thread(copying.copy_files, settings, take)
    else:
        await copying.copy_tables(settings, take)


def _to_json(table: Table, row: Mapping[Any, Any]) -> dict[str, Any]:
    values = {column.name: row[column.name] for column in table.columns}
    return {
        name: base64.b64encode(value).decode() if isinstance(value, bytes) else value
        for name, value in values.items()
    }


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    archive.addfile(_info(name, len(content)), io.BytesIO(content))


def _info(name: str, size: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = size, 0o600, int(time.time())
    return info


# --- restore


async def restore(settings: ServerSettings, file: Path) -> Restored:
    """Fill an empty data folder and an empty database from a back-up; after a failure both are empty again.

    Raises:
        UsageError: the folder or the database holds something.
        MessageError: no back-up, or a damaged one.
        ServerError: a back-up of a newer version.
    """
    if settings.data.exists() and any(settings.data.iterdir()):
        raise UsageError(f"{settings.data} holds something; restore to an empty folder (--data)")
    existed = settings.data.exists()
    settings.data.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        with tarfile.open(file, "r:") as archive:
            return await _restore(settings, archive)
    except BaseException as error:
        for path in settings.data.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        if not existed:
            settings.data.rmdir()
        if isinstance(error, (tarfile.TarError, ValueError, KeyError)):
            raise MessageError(f"{file} is no whole back-up of an edgeml server: {error}") from error
        raise


async def _restore(settings: ServerSettings, archive: tarfile.TarFile) -> Restored:
    members = iter(archive)
    header = json.loads(_read(archive, next(members, None), _HEADER))
    if header["schema"] != SCHEMA:
        raise ServerError(f"this back-up has schema {header['schema']}; use the newer version that made it")
    database = await Database.reach(settings.url)
    telemetry = _Telemetry(settings)
    try:
        async with database.writing() as tx:
            await _require_empty(tx)
            await migrate_within(tx, header["step"])
            schema = await tx.connection.run_sync(_reflected)
            rows, blobs = 0, 0
            for member in members:
                content = archive.extractfile(member)
                if content is None:
                    raise ValueError(f"{member.name} is no file")
                kind, _, name = member.name.partition("/")
                if kind == "tables":
                    rows += await _fill(tx, schema.tables[name.removesuffix(".jsonl")], content)
                elif kind == "keys":
                    _write_key(settings.keys / Path(name).name, content.read())
                elif kind == "blobs":
                    await asyncio.to_thread(_write_blob, settings, name, content)
                    blobs += 1
                elif kind in {copying.FILES, copying.TABLES}:
                    await telemetry.take(kind, name, content)
            await migrate_within(tx)
            roles = await _go_ahead(settings, database, tx)
            revoked = await _revoke_join_tokens(tx)
            detail = {
                "created_at": header["created_at"],
                "rows": rows,
                "blobs": blobs,
                "revoked_join_tokens": revoked,
            }
            await audit.record(tx, "server", "server.restore", "server", detail)
            await telemetry.tables.commit()
    finally:
        await telemetry.tables.close()
        await database.close()
    return Restored(header["created_at"], rows, blobs, roles, revoked, telemetry.restored)


class _Telemetry:
    """What a back-up has of telemetry; left out where it is of another kind of database."""

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings
        self._kind = copying.FILES if settings.url.get_backend_name() == "sqlite" else copying.TABLES
        self.tables = copying.TableFiller(settings)
        self.restored: bool | None = None

    async def take(self, kind: str, name: str, content: IO[bytes]) -> None:
        self.restored = kind == self._kind
        if kind == self._kind == copying.FILES:
            await asyncio.to_thread(copying.restore_file, self._settings, name, content)
        elif self.restored:
            await self.tables.fill(name, content)


async def _require_empty(tx: Transaction) -> None:
    found = await tx.connection.run_sync(_reflected)
    for table in found.sorted_tables:
        if table.name != "alembic_version":
            count = (await tx.connection.execute(select(func.count()).select_from(table))).scalar()
            if count:
                raise UsageError(
                    f"the database holds something in {table.name}; restore to an empty one (--database)"
                )


async def _fill(tx: Transaction, table: Table, content: Any) -> int:
    """Fill a table as it was at the back-up's step."""
    binary = {column.name for column in table.columns if isinstance(column.type, LargeBinary)}
    rows = [
        {
            name: base64.b64decode(value) if name in binary else value
            for name, value in json.loads(line).items()
        }
        for line in content
    ]
    known = METADATA.tables.get(table.name)
    for piece in pieces(rows, _ROWS):
        # the types of the code where they are the same: JSON is text in some databases
        await tx.connection.execute(insert(table if known is None else known), list(piece))
    if tx.connection.dialect.name == "postgresql" and table.name in {"events", "health", "alert_notices"}:
        await tx.connection.execute(
            text(
                f"SELECT setval(pg_get_serial_sequence('{table.name}', 'id'), "  # noqa: S608 - one of three names
                f"coalesce(max(id), 0) + 1, false) FROM {table.name}"
            )
        )
    return len(rows)


async def _go_ahead(settings: ServerSettings, database: Database, tx: Transaction) -> tuple[str, ...]:
    """Jump over everything that devices may have seen after the back-up."""
    devices = tables.devices
    await tx.connection.execute(update(devices).values(generation=devices.c.generation + AHEAD))
    blobs = BlobStore(settings.blobs, settings.limits.blob_bytes)
    repository = Repository(database, blobs, OnlineKeys(settings.keys))
    roles = await repository.roles(tx.connection)
    if roles:
        await repository.publish_again(tx, AHEAD)
    return tuple(sorted(roles.keys() - {"snapshot", "timestamp"}))


async def _revoke_join_tokens(tx: Transaction) -> int:
    """Revoke all that could still be used: of what happened to them after the back-up nothing is known."""
    now = time.time()
    join = tables.join_tokens
    is_open = join.c.revoked_at.is_(None), join.c.uses_left > 0, join.c.expires_at > now
    return (await tx.connection.execute(update(join).where(*is_open).values(revoked_at=now))).rowcount


def _reflected(connection: Connection) -> MetaData:
    found = MetaData()
    found.reflect(connection)
    return found


def _read(archive: tarfile.TarFile, member: tarfile.TarInfo | None, name: str) -> bytes:
    content = archive.extractfile(member) if member is not None and member.name == name else None
    if content is None:
        raise ValueError(f"it does not begin with {name}")
    return content.read()


def _write_key(path: Path, content: bytes) -> None:
    path.parent.mkdir(mode=0o700, exist_ok=True)
    with os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
        file.write(content)
        os.fsync(file.fileno())


def _write_blob(settings: ServerSettings, name: str, content: Any) -> None:
    if not HASH.fullmatch(name):
        raise ValueError(f"{name} is no blob's name")
    path = settings.blobs / name[:2] / name
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with path.open("xb") as file:
        while chunk := content.read(1 << 20):
            digest.update(chunk)
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
    if digest.hexdigest() != name:
        raise ValueError(f"blob {name} is damaged")
    path.chmod(0o444)
