"""What every poll needs, in memory: whose token it is, what the device is to be, and who waits for a change.

It is kept right by the database's changes; a poll that is answered from here costs no query.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import Row, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeml import typed_json
from edgeml_devices.messages import Assignment, DesiredState
from edgeml_devices.server.database import Database, pieces
from edgeml_devices.server.tables import assignments, devices

UNKNOWN: Final = "unknown"
_TARGET: Final = 128
"""Characters of a target's name that are kept."""
_SEEN_EVERY_S: Final = 15.0
"""How old ``last_seen`` of a device that keeps calling may become."""
_LOAD: Final = 2000
"""Devices in one query when all are loaded."""


@dataclass(slots=True, eq=False)
class Known:
    """One device that is not retired."""

    id: str
    token: bytes
    """SHA-256 of its token."""
    generation: int
    document: bytes
    """Its :class:`DesiredState`, as JSON; empty: it depends on the time, see :meth:`answer`."""
    rows: list[Row[Any]] | None
    """What it is made of, where it depends on the time."""
    target: str = UNKNOWN
    """Kind of machine, as its facts say it."""
    seen_at: float = 0.0
    """What ``last_seen`` was last set to by this process."""
    waiting: list[asyncio.Future[bool]] = field(default_factory=list)
    """Polls; ``True`` wakes one because of a change."""

    def answer(self, now: float) -> bytes:
        """Give the desired state as JSON."""
        return self.document if self.rows is None else _document(self.generation, self.rows, now)


class Directory:
    """All devices of one server, as this process knows them."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._by_token: dict[bytes, Known] = {}
        self._by_id: dict[str, Known] = {}
        self._seen: dict[str, Known] = {}
        self._loading = asyncio.Lock()
        self.fresh = True
        """Whether changes of other processes are heard; else each poll asks the database."""
        self.waiting = 0
        """Polls that wait in this process."""
        database.subscribe(self.refresh)

    def __len__(self) -> int:
        return len(self._by_id)

    def by_token(self, sha256: bytes) -> Known | None:
        """Give the device with this token; one that another process enrolled a moment ago may lack."""
        return self._by_token.get(sha256)

    async def find(self, sha256: bytes) -> Known | None:
        """Give the device with this token, asking the database where it is not known here."""
        known = self._by_token.get(sha256)
        if known is None:
            async with self._database.reading() as connection:
                statement = select(devices.c.id).where(
                    devices.c.token_sha256 == sha256.hex(), devices.c.retired_at.is_(None)
                )
                id_ = (await connection.execute(statement)).scalar()
            if id_ is not None:
                await self.refresh([id_])
                known = self._by_token.get(sha256)
        return known

    # --- kept right

    async def load(self) -> None:
        """Read all devices again: at the start, and after changes may have been missed."""
        async with self._loading, self._database.reading() as connection:
            ids: set[str] = set()
            after = ""
            while page := await _page(connection, after):
                ids.update(page)
                after = page[-1]
                await self._read(connection, page)
            for gone in self._by_id.keys() - ids:
                self._forget(gone)

    async def refresh(self, ids: Iterable[str]) -> None:
        """Read some devices again, and wake the polls of those that changed."""
        # one at a time, so that what was read later is also stored later
        async with self._loading, self._database.reading() as connection:
            for piece in pieces(ids):
                await self._read(connection, piece)

    async def _read(self, connection: AsyncConnection, ids: Iterable[str]) -> None:
        wanted = list(ids)
        statement = (
            select(
                devices.c.id,
                devices.c.token_sha256,
                devices.c.generation,
                devices.c.facts[("target", "name")].as_string().label("target_name"),
                assignments,
            )
            .join(assignments, assignments.c.device_id == devices.c.id, isouter=True)
            .where(devices.c.id.in_(wanted), devices.c.retired_at.is_(None))
            .order_by(devices.c.id, assignments.c.model)
        )
        rows: dict[str, list[Row[Any]]] = {}
        for row in await connection.execute(statement):
            rows.setdefault(row.id, []).append(row)
        for id_ in wanted:
            if id_ in rows:
                self._remember(id_, rows[id_])
            else:
                self._forget(id_)

    def _remember(self, id_: str, rows: list[Row[Any]]) -> None:
        first = rows[0]
        timed = rows if any(row.open_until is not None for row in rows) else None
        document = _document(first.generation, rows, 0.0) if timed is None else b""
        known = self._by_id.get(id_)
        if known is None:
            known = Known(id_, bytes.fromhex(first.token_sha256), first.generation, document, timed)
            self._by_id[id_] = self._by_token[known.token] = known
        elif known.generation != first.generation:
            known.generation, known.document, known.rows = first.generation, document, timed
            _wake(known, changed=True)
        known.target = sys.intern(str(first.target_name or UNKNOWN)[:_TARGET])

    def _forget(self, id_: str) -> None:
        known = self._by_id.pop(id_, None)
        if known is not None:
            self._by_token.pop(known.token, None)
            self._seen.pop(id_, None)
            _wake(known, changed=True)

    def knows(self, known: Known) -> bool:
        """Say whether the device is still there: one that was retired while it waited is not."""
        return self._by_id.get(known.id) is known

    def drain(self) -> None:
        """End all polls that wait, with "no change": the process ends."""
        for known in self._by_id.values():
            _wake(known, changed=False)

    # --- last_seen

    def note_seen(self, known: Known) -> None:
        """Note that a device called; written by :meth:`flush_seen`."""
        now = time.time()
        if now - known.seen_at > _SEEN_EVERY_S:
            known.seen_at = now
            self._seen[known.id] = known

    async def flush_seen(self) -> None:
        """Write ``last_seen`` of those that called since it was written."""
        seen, self._seen = self._seen, {}
        now = time.time()
        for ids in pieces(sorted(seen), _LOAD):
            async with self._database.writing() as transaction:
                # a row that is being changed by somebody else is written by its next call
                free = select(devices.c.id).where(devices.c.id.in_(ids)).with_for_update(skip_locked=True)
                await transaction.connection.execute(
                    update(devices).where(devices.c.id.in_(free)).values(last_seen=now)
                )


def _wake(known: Known, *, changed: bool) -> None:
    for waiter in known.waiting:
        if not waiter.done():
            waiter.set_result(changed)


async def _page(connection: AsyncConnection, after: str) -> list[str]:
    statement = select(devices.c.id).where(devices.c.id > after, devices.c.retired_at.is_(None))
    return list((await connection.execute(statement.order_by(devices.c.id).limit(_LOAD))).scalars())


def _document(generation: int, rows: Iterable[Row[Any]], now: float) -> bytes:
    models = {
        row.model: Assignment(
            release=row.release,
            attempt=row.attempt,
            hold=row.hold or (row.open_until is not None and row.open_until <= now),
            open_for_s=None if row.open_until is None else max(0.0, row.open_until - now),
            on_abort=row.on_abort,
            rollout=row.rollout_id,
        )
        for row in rows
        if row.model is not None
    }
    state = typed_json.write(DesiredState(generation, models))
    return json.dumps(state, separators=(",", ":"), ensure_ascii=False).encode()
