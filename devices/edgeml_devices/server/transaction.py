"""What one write gathers until its commit: rows for the audit log, and devices that must hear of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that happened."""

    actor: str
    """``admin:NAME``, ``device:ID``, ``server``, ``anonymous:ADDRESS``."""
    action: str
    object: str
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Transaction:
    """One write: all of it, or nothing."""

    connection: AsyncConnection
    changed: set[str] = field(default_factory=set)
    """Ids of devices whose desired state, token or being there changed."""
    entries: list[Entry] = field(default_factory=list)
    """Rows for the audit log, appended last, so that its lock is held shortly and always taken last."""


async def take_turn(connection: AsyncConnection, lock: int) -> None:
    """Wait until no other process has this lock of PostgreSQL's, and have it until the transaction ends.

    SQLite has one writer at a time anyway.
    """
    if connection.dialect.name == "postgresql":
        await connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": lock})
