"""The signed repository: takes metadata whose signatures hold, and signs what is current itself.

Metadata that has a version never changes and is kept in memory; only ``timestamp`` is asked of the database.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from securesystemslib.signer import CryptoSigner
from sqlalchemy import delete, func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, Targets, Timestamp

from edgeml.errors import MessageError, TrustError
from edgeml_devices.server import audit
from edgeml_devices.server.blobs import BlobStore
from edgeml_devices.server.database import Database
from edgeml_devices.server.refusals import RefusalError
from edgeml_devices.server.signed import metadata as md
from edgeml_devices.server.signed.online_keys import OnlineKeys
from edgeml_devices.server.tables import audit as audit_log
from edgeml_devices.server.tables import releases
from edgeml_devices.server.tables import signed_metadata as table
from edgeml_devices.server.transaction import Transaction, take_turn
from edgeml_devices.tuf_words import FLOOR_FIELD, ISSUED_FIELD, ROLE_FIELD, manifest_path

SNAPSHOT_LIFETIME: Final = timedelta(days=7)
TIMESTAMP_LIFETIME: Final = timedelta(days=1)
RENEW_S: Final = 3600.0
"""How often a timestamp is made: devices without a clock take the time from it; it has the audit's head."""
SNAPSHOT_RENEW_S: Final = 2 * 86400.0
_KEPT: Final = 20
"""Versions of snapshot and timestamp; who refreshes just now may still ask for one of the last."""
_LOCK: Final = 0x65646765_72657073
"""PostgreSQL's advisory lock of the repository ("edgereps")."""
_MEMORY: Final = 256
"""Files kept in memory."""


@dataclass(slots=True)
class Repository:
    """The repository of one server."""

    database: Database
    blobs: BlobStore
    keys: OnlineKeys
    _files: dict[tuple[str, int], bytes] = field(default_factory=dict)
    _parsed: dict[tuple[str, int], Metadata[Any]] = field(default_factory=dict)

    # --- reading

    async def file(self, role: str, version: int | None) -> bytes | None:
        """Give a metadata file; the newest without a version. ``None``: there is no such file."""
        if version is not None and (role, version) in self._files:
            return self._files[role, version]
        async with self.database.reading() as connection:
            found = await _stored(connection, role, version)
        if found is None:
            return None
        self._keep(role, found[0], found[1])
        return found[1]

    async def newest(self, connection: AsyncConnection, role: str) -> Metadata[Any] | None:
        """Give a role's newest metadata, as it was committed; ``None``: it has none. Do not change it."""
        version = (await _versions(connection)).get(role)
        if version is None:
            return None
        if (role, version) not in self._parsed:
            found = await _stored(connection, role, version)
            if found is None:
                return None
            self._keep(role, version, found[1])
            self._parsed[role, version] = Metadata.from_bytes(found[1])
        return self._parsed[role, version]

    async def roles(self, connection: AsyncConnection) -> dict[str, tuple[int, float]]:
        """Give version and expiry of each role's newest metadata."""
        newest = (
            select(table.c.role, func.max(table.c.version).label("version")).group_by(table.c.role).subquery()
        )
        statement = select(table.c.role, table.c.version, table.c.expires_at).join(
            newest, (table.c.role == newest.c.role) & (table.c.version == newest.c.version)
        )
        return {row.role: (row.version, row.expires_at) for row in await connection.execute(statement)}

    async def manifest_sha256(
        self, connection: AsyncConnection, model: str, release: int
    ) -> tuple[str, str] | None:
        """Give family and manifest hash of a signed release; ``None``: none was signed."""
        targets = await self.newest(connection, "targets")
        role = None if targets is None else md.owner_of(targets.signed, model)
        family = None if role is None else await self.newest(connection, role.name)
        target = None if family is None else family.signed.targets.get(manifest_path(model, release))
        if role is None or target is None:
            return None
        return role.name, target.hashes["sha256"]

    async def floor(self, connection: AsyncConnection, model: str) -> int:
        """Give the lowest release of a model that devices take."""
        targets = await self.newest(connection, "targets")
        return 0 if targets is None else md.floor_of(targets.signed, model)

    # --- writing

    async def init(
        self,
        actor: object,
        root: Mapping[str, Any],
        targets: Mapping[str, Any],
        delegated: Sequence[Mapping[str, Any]],
    ) -> dict[str, int]:
        """Take the first metadata of all roles, all or nothing; give the versions.

        Raises:
            RefusalError: 409: there is a repository, or manifests are missing.
            TrustError: signatures that do not hold, or root does not name the server's keys.
            MessageError: metadata that cannot be used.
        """
        async with self.database.writing() as tx:
            await take_turn(tx.connection, _LOCK)
            if await _versions(tx.connection):
                raise RefusalError(409, "this server has a repository already; publish to it")
            content = md.write(root)
            new = md.parse(content, Root, "root")
            md.check_root(new, None)
            for role in ("snapshot", "timestamp"):
                self.keys.signer(role, new.signed)
            await self._put(tx, "root", content, new.signed)
            await self._take_targets(tx, md.write(targets))
            for one in delegated:
                family = md.write(one)
                name = md.parse(family, Targets, "delegated").signed.unrecognized_fields.get(ROLE_FIELD)
                if not isinstance(name, str):
                    raise MessageError(f"delegated: its field {ROLE_FIELD} must say whose metadata it is")
                await self._take_family(tx, name, family)
            await self._publish(tx)
            versions = await _versions(tx.connection)
            await audit.record(tx, actor, "repository.init", "repository", {"roles": versions})
            return versions

    async def take(self, actor: object, role: str, content: bytes) -> dict[str, int]:
        """Take the next version of a role's metadata, and sign what is current; give the versions.

        The same bytes as the newest again change nothing.

        Raises:
            RefusalError: 409: not the next version, or manifests are missing; 404: no repository yet.
            TrustError: signatures that do not hold.
            MessageError: metadata that cannot be used.
        """
        async with self.database.writing() as tx:
            await take_turn(tx.connection, _LOCK)
            versions = await _versions(tx.connection)
            if not versions:
                raise RefusalError(404, "this server has no repository yet; make one: edgeml repo init")
            stored = await _stored(tx.connection, role, None)
            if stored is not None and stored[1] == content:
                return versions
            if role == "root":
                await self._take_root(tx, content)
            elif role == "targets":
                await self._take_targets(tx, content)
            elif role in {"snapshot", "timestamp"}:
                raise RefusalError(409, f"the server signs {role} itself")
            else:
                await self._take_family(tx, role, content)
            await self._publish(tx)
            versions = await _versions(tx.connection)
            await audit.record(tx, actor, "repository.publish", role, {"version": versions[role]})
            return versions

    async def renew(self, now: float | None = None) -> bool:
        """Sign snapshot and timestamp again where they are due; say whether something was."""
        now = time.time() if now is None else now
        async with self.database.reading() as connection:
            if not await self._is_due(connection, now):
                return False
        async with self.database.writing() as tx:
            await take_turn(tx.connection, _LOCK)
            # another process may have been quicker
            if not await self._is_due(tx.connection, now):
                return False
            await self._publish(tx, now=now)
            return True

    async def _is_due(self, connection: AsyncConnection, now: float) -> bool:
        roles = await self.roles(connection)
        if "timestamp" not in roles:
            return False
        return roles["timestamp"][1] - TIMESTAMP_LIFETIME.total_seconds() < now - RENEW_S

    async def _take_root(self, tx: Transaction, content: bytes) -> None:
        new = md.parse(content, Root, "root")
        old = await _current(tx.connection, "root")
        _require_next("root", new, old)
        md.check_root(new, old)
        for role in ("snapshot", "timestamp"):
            self.keys.signer(role, new.signed)
        targets = await _current(tx.connection, "targets")
        await self._put(tx, "root", content, new.signed)
        if targets is not None:
            try:
                md.check_signatures(new.signed, "targets", targets)
            except TrustError:
                # taken all the same: a stolen key goes at once, and devices wait for new targets
                await audit.record(
                    tx, "server", "repository.unsigned", "targets", {"root": new.signed.version}
                )

    async def _take_targets(self, tx: Transaction, content: bytes) -> None:
        new = md.parse(content, Targets, "targets")
        root, old = await _current(tx.connection, "root"), await _current(tx.connection, "targets")
        if root is None:
            raise TrustError("targets: there is no root")
        md.check_signatures(root.signed, "targets", new)
        _require_next("targets", new, old, gaps=await _was_restored(tx, "targets"))
        md.check_targets(new)
        if old is not None:
            for role in md.families(old.signed):
                for model, floor in role.unrecognized_fields.get(FLOOR_FIELD, {}).items():
                    # a model that nobody signs any more needs none
                    if md.owner_of(new.signed, model) and md.floor_of(new.signed, model) < floor:
                        raise MessageError(f"targets: the floor of {model} is {floor} and only rises")
        await self._put(tx, "targets", content, new.signed)

    async def _take_family(self, tx: Transaction, name: str, content: bytes) -> None:
        new = md.parse(content, Targets, name)
        targets, old = await _current(tx.connection, "targets"), await _current(tx.connection, name)
        if targets is None:
            raise TrustError(f"{name}: there are no targets that delegate to it")
        # a stranger is told nothing; whoever came second is told that, not that a release went
        family = md.authenticate_family(name, new, targets.signed)
        _require_next(name, new, old, gaps=await _was_restored(tx, name))
        md.check_family(family, new, old, targets.signed)
        missing = [
            target.hashes["sha256"]
            for target in md.manifests(new.signed)
            if self.blobs.size_bytes(target.hashes["sha256"]) != target.length
        ]
        if missing:
            raise RefusalError(
                409, f"{name}: {len(missing)} manifests were not uploaded before", missing=missing
            )
        await _require_unchanged(tx, new.signed)
        await self._put(tx, name, content, new.signed)

    async def _put(self, tx: Transaction, role: str, content: bytes, signed: Root | Targets) -> None:
        await _put(tx, role, signed.version, content, signed.expires)

    async def publish_again(self, tx: Transaction, ahead: int) -> None:
        """Sign snapshot and timestamp with versions so far ahead: after a back-up was restored."""
        await self._publish(tx, ahead=ahead)

    async def _publish(self, tx: Transaction, *, now: float | None = None, ahead: int = 0) -> None:
        """Sign a new snapshot where the roles changed or it is due, and a new timestamp."""
        moment = datetime.fromtimestamp(time.time() if now is None else now, UTC).replace(microsecond=0)
        root = await _current(tx.connection, "root")
        if root is None:
            raise TrustError("there is no root")
        versions = await _versions(tx.connection)
        meta = {
            f"{role}.json": MetaFile(version)
            for role, version in versions.items()
            if role not in {"root", "snapshot", "timestamp"}
        }
        signer = self.keys.signer("snapshot", root.signed)
        snapshot = await _current(tx.connection, "snapshot")
        if (
            snapshot is None
            or ahead
            or snapshot.signed.meta != meta
            or signer.public_key.keyid not in snapshot.signatures
            or snapshot.signed.expires - SNAPSHOT_LIFETIME + timedelta(seconds=SNAPSHOT_RENEW_S) < moment
        ):
            version = versions.get("snapshot", 0) + 1 + ahead
            snapshot = Metadata(Snapshot(version, expires=moment + SNAPSHOT_LIFETIME, meta=meta))
            await self._sign(tx, "snapshot", snapshot, signer)
        stored = await _stored(tx.connection, "snapshot", snapshot.signed.version)
        head = await audit.head(tx.connection)
        timestamp = Metadata(
            Timestamp(
                versions.get("timestamp", 0) + 1 + ahead,
                expires=moment + TIMESTAMP_LIFETIME,
                snapshot_meta=MetaFile.from_data(
                    snapshot.signed.version, stored[1] if stored else b"", ["sha256"]
                ),
                unrecognized_fields={
                    ISSUED_FIELD: int(moment.timestamp()),
                    "edgeml_audit": {"id": head.id, "sha256": head.sha256},
                },
            )
        )
        await self._sign(tx, "timestamp", timestamp, self.keys.signer("timestamp", root.signed))

    async def _sign(self, tx: Transaction, role: str, metadata: Metadata[Any], signer: CryptoSigner) -> None:
        metadata.sign(signer)
        signed = metadata.signed
        await _put(tx, role, signed.version, metadata.to_bytes(), signed.expires)
        old = table.c.role == role, table.c.version <= signed.version - _KEPT
        await tx.connection.execute(delete(table).where(*old))

    def _keep(self, role: str, version: int, content: bytes) -> None:
        for memory in (self._files, self._parsed):
            while len(memory) >= _MEMORY:
                memory.pop(next(iter(memory)))
        self._files[role, version] = content


async def _was_restored(tx: Transaction, role: str) -> bool:
    """Say whether a role's newest metadata came from a back-up: devices may have seen newer."""
    log = select(func.max(audit_log.c.at)).where(audit_log.c.action == "server.restore")
    restored_at = (await tx.connection.execute(log)).scalar()
    stored = select(func.max(table.c.stored_at)).where(table.c.role == role)
    stored_at = (await tx.connection.execute(stored)).scalar()
    return restored_at is not None and stored_at is not None and bool(stored_at < restored_at)


def _require_next(role: str, new: Metadata[Any], old: Metadata[Any] | None, *, gaps: bool = False) -> None:
    before = 0 if old is None else old.signed.version
    if new.signed.version != before + 1 and not (gaps and new.signed.version > before):
        raise RefusalError(
            409,
            f"{role}: the next version is {before + 1}, not {new.signed.version}; read the repository again",
        )


async def _require_unchanged(tx: Transaction, family: Targets) -> None:
    """Refuse a release whose number stands for another manifest, signed by the model's former family."""
    for row in await tx.connection.execute(
        select(releases.c.model, releases.c.release, releases.c.manifest_sha256)
    ):
        target = family.targets.get(manifest_path(row.model, row.release))
        if target is not None and target.hashes["sha256"] != row.manifest_sha256:
            raise RefusalError(
                409, f"{row.model}/{row.release} was published with another manifest; a release never changes"
            )


async def _versions(connection: AsyncConnection) -> dict[str, int]:
    statement = select(table.c.role, func.max(table.c.version)).group_by(table.c.role)
    return {row[0]: row[1] for row in await connection.execute(statement)}


async def _stored(connection: AsyncConnection, role: str, version: int | None) -> tuple[int, bytes] | None:
    statement = select(table.c.version, table.c.content).where(table.c.role == role)
    if version is None:
        statement = statement.order_by(table.c.version.desc()).limit(1)
    else:
        statement = statement.where(table.c.version == version)
    row = (await connection.execute(statement)).first()
    return None if row is None else (row.version, row.content)


async def _current(connection: AsyncConnection, role: str) -> Metadata[Any] | None:
    """Give a role's newest metadata as this transaction sees it, past the memory: it may be rolled back."""
    found = await _stored(connection, role, None)
    return None if found is None else Metadata.from_bytes(found[1])


async def _put(tx: Transaction, role: str, version: int, content: bytes, expires: datetime) -> None:
    row = {
        "role": role,
        "version": version,
        "content": content,
        "expires_at": expires.timestamp(),
        "stored_at": time.time(),
    }
    await tx.connection.execute(insert(table).values(row))
