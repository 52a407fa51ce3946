"""A page of the audit log, newest first, and whether its rows are as they were written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import select
from sqlalchemy.engine import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeml_devices import audit_chain
from edgeml_devices.server.tables import audit

PAGE: Final = 50


@dataclass(frozen=True, slots=True)
class AuditPage:
    """Rows in a chain."""

    rows: tuple[Row[Any], ...]
    broken: frozenset[int]
    """Ids of rows whose hash, or whose place behind the row before, is wrong."""
    before: int | None
    """Id of the last one where older ones follow."""


async def audit_page(connection: AsyncConnection, before: int | None) -> AuditPage:
    """Read a page, and one row more: each row's hash covers the row before."""
    statement = select(audit)
    if before is not None:
        statement = statement.where(audit.c.id < before)
    found = list(await connection.execute(statement.order_by(audit.c.id.desc()).limit(PAGE + 1)))
    shown = found[:PAGE]
    more = len(found) > PAGE
    return AuditPage(tuple(shown), broken_rows(found, whole=not more), shown[-1].id if more else None)


def broken_rows(rows: Sequence[Row[Any]], *, whole: bool) -> frozenset[int]:
    """Give the ids of rows that are not what was written.

    Args:
        rows: newest first, without gaps.
        whole: whether the last one is the first of the log; else it is only what the one behind it is
            held against.
    """
    broken = set()
    for place, row in enumerate(rows if whole else rows[:-1]):
        older = rows[place + 1] if place + 1 < len(rows) else None
        id_, sha256 = (0, audit_chain.START) if older is None else (older.id, older.sha256)
        if row.id != id_ + 1 or row.previous_sha256 != sha256 or not _is_intact(row):
            broken.add(row.id)
    return frozenset(broken)


def _is_intact(row: Row[Any]) -> bool:
    fields = {name: getattr(row, name) for name in audit_chain.FIELDS}
    try:
        return bool(audit_chain.row_sha256(row.previous_sha256, fields) == row.sha256)
    except (TypeError, ValueError):  # what JSON could not have written
        return False
