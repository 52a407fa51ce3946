"""What devices report: many reports in one transaction, each answered after the commit.

Events and health are added once by (device, epoch, seq). What a device runs is the newest report's; one that
comes late changes nothing of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Table, and_, bindparam, delete, func, or_, select, tuple_, update
from sqlalchemy.dialects import postgresql, sqlite

from edgeml_devices.messages import Accepted, ModelStatus, Reason, Report
from edgeml_devices.server.database import Database, pieces
from edgeml_devices.server.fleet.columns import to_json
from edgeml_devices.server.tables import devices, events, health, statuses
from edgeml_devices.server.transaction import Transaction

_TOGETHER: Final = 64
"""Reports of one transaction at most."""
_ROWS: Final = 500
"""Of one statement: each has up to 20 parameters."""
_DETAIL: Final = 4000
_PAST_EPOCHS: Final = 32
"""Of one device: an agent begins one only when it lost what it remembered."""
_OLDEST_S: Final = 30 * 86400.0
"""How long ago a window of health may have ended."""
REFUSED_ON_DEVICE: Final = frozenset(
    {
        Reason.HASH,
        Reason.SIGNATURE,
        Reason.METADATA_ROLLBACK,
        Reason.METADATA_EXPIRED,
        Reason.BELOW_FLOOR,
        Reason.MANIFEST,
    }
)
"""What a device refuses for the sake of security: the audit log has it."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A release that a device refused."""

    device_id: str
    about: str
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Stored:
    """What became of a report."""

    accepted: Accepted
    refused: tuple[Refused, ...]
    """New in this report."""


@dataclass(slots=True)
class _Pending:
    report: Report
    received_at: float
    stored: asyncio.Future[Stored]


class ReportQueue:
    """Takes reports, and stores those that came meanwhile together."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._pending: list[_Pending] = []
        self._came = asyncio.Event()

    async def store(self, report: Report, now: float) -> Stored:
        """Store a report; comes back after the commit. The report must be checked."""
        pending = _Pending(report, now, asyncio.get_running_loop().create_future())
        self._pending.append(pending)
        self._came.set()
        return await pending.stored

    async def run(self) -> None:
        """Store what comes, until cancelled."""
        while True:
            await self._came.wait()
            batch, self._pending = self._pending[:_TOGETHER], self._pending[_TOGETHER:]
            if not self._pending:
                self._came.clear()
            await self._store(batch)

    async def _store(self, batch: Sequence[_Pending]) -> None:
        try:
            async with self._database.writing() as transaction:
                found = await store(transaction, [(one.report, one.received_at) for one in batch])
        except Exception as error:  # noqa: BLE001 - goes to whoever waits for it
            if len(batch) > 1:
                # one of them may be at fault: the others must not wait for it
                for one in batch:
                    await self._store([one])
            elif not batch[0].stored.done():
                batch[0].stored.set_exception(error)
            return
        for one, stored in zip(batch, found, strict=True):
            if not one.stored.done():
                one.stored.set_result(stored)


async def store(transaction: Transaction, reports: Sequence[tuple[Report, float]]) -> list[Stored]:
    """Store reports, in the order in which they came."""
    insert = (sqlite if transaction.connection.dialect.name == "sqlite" else postgresql).insert
    newest = await _newest(transaction, {report.device_id for report, _ in reports})
    current: list[tuple[Report, float]] = []
    for report, now in reports:
        known = newest.get(report.device_id)
        if known is not None and known.precedes(report):
            known.take(report)
            current.append((report, now))
    new = await _add_once(
        transaction, insert, events, [_event(*one, event) for one in reports for event in one[0].events]
    )
    await _add_once(
        transaction, insert, health, [_health(*one, window) for one in reports for window in one[0].health]
    )
    # of several of one device the last says what it is now
    last = {report.device_id: (report, now) for report, now in current}
    await _set_statuses(transaction, insert, last)
    await _set_devices(transaction, current, newest)
    highest = [await _highest(transaction, table, reports) for table in (events, health)]
    return [
        Stored(
            Accepted(*(found.get((report.device_id, report.epoch), -1) for found in highest)),
            _refused(report, new),
        )
        for report, _ in reports
    ]


@dataclass(slots=True)
class _Newest:
    """What is known of a device's reports."""

    epoch: str | None
    seq: int | None
    past: list[str]
    """Epochs that were replaced, the oldest first."""

    def precedes(self, report: Report) -> bool:
        if report.epoch == self.epoch:
            return self.seq is None or report.seq > self.seq
        return report.epoch not in self.past

    def take(self, report: Report) -> None:
        if self.epoch is not None and report.epoch != self.epoch:
            self.past = [*self.past, self.epoch][-_PAST_EPOCHS:]
        self.epoch, self.seq = report.epoch, report.seq


async def _newest(transaction: Transaction, ids: set[str]) -> dict[str, _Newest]:
    locked = (
        select(devices.c.id, devices.c.report_epoch, devices.c.report_seq, devices.c.past_epochs)
        .where(devices.c.id.in_(sorted(ids)), devices.c.retired_at.is_(None))
        .order_by(devices.c.id)
        .with_for_update()
    )
    return {
        row.id: _Newest(row.report_epoch, row.report_seq, row.past_epochs or [])
        for row in await transaction.connection.execute(locked)
    }


def _event(report: Report, now: float, event: Any) -> dict[str, Any]:
    return {
        "device_id": report.device_id,
        "epoch": report.epoch,
        "seq": event.seq,
        "at": event.at,
        "received_at": now,
        "model": event.model,
        "release": event.release,
        "attempt": event.attempt,
        "state": event.state,
        "result": event.result,
        "reason": _reason(event.reason),
        "detail": event.detail[:_DETAIL],
        "rollout_id": event.rollout,
        "variant": event.variant,
    }


def _health(report: Report, now: float, window: Any) -> dict[str, Any]:
    # on the server's clock: the device's may be years off
    ago_s = min(max(report.at - window.at, 0.0), _OLDEST_S)
    return {
        "device_id": report.device_id,
        "epoch": report.epoch,
        "seq": window.seq,
        "at": now - ago_s,
        "received_at": now,
        "duration_s": window.duration_s,
        "model": window.model,
        "release": window.release,
        "variant": window.variant,
        "processes": window.processes,
        "calls": window.calls,
        "errors": window.errors,
        "latency_counts": dict(window.latency_counts),
        "detail": window.detail[:_DETAIL],
    }


def _reason(reason: str | None) -> str | None:
    return None if reason is None else reason[:32]


async def _add_once(
    transaction: Transaction, insert: Callable[..., Any], table: Table, rows: Sequence[dict[str, Any]]
) -> set[tuple[str, str, int]]:
    """Add rows that are not there; give the (device, epoch, seq) of those."""
    added: set[tuple[str, str, int]] = set()
    for piece in pieces(rows, _ROWS):
        statement = insert(table).values(list(piece)).on_conflict_do_nothing()
        statement = statement.returning(table.c.device_id, table.c.epoch, table.c.seq)
        added.update((row[0], row[1], row[2]) for row in await transaction.connection.execute(statement))
    return added


async def _set_statuses(
    transaction: Transaction, insert: Callable[..., Any], last: Mapping[str, tuple[Report, float]]
) -> None:
    rows = [
        _status(report.device_id, now, model, status)
        for report, now in last.values()
        for model, status in report.models.items()
    ]
    for piece in pieces(rows, _ROWS):
        statement = insert(statuses).values(list(piece))
        columns = {name: statement.excluded[name] for name in piece[0] if name not in {"device_id", "model"}}
        await transaction.connection.execute(
            statement.on_conflict_do_update(index_elements=["device_id", "model"], set_=columns)
        )
    there = select(statuses.c.device_id, statuses.c.model).where(statuses.c.device_id.in_(sorted(last)))
    gone = [
        and_(statuses.c.device_id == row.device_id, statuses.c.model == row.model)
        for row in await transaction.connection.execute(there)
        if row.model not in last[row.device_id][0].models
    ]
    for conditions in pieces(gone):
        await transaction.connection.execute(delete(statuses).where(or_(*conditions)))


def _status(device_id: str, now: float, model: str, status: ModelStatus) -> dict[str, Any]:
    return {
        "device_id": device_id,
        "model": model,
        "state": status.state,
        "running": status.running,
        "manifest_sha256": status.manifest_sha256,
        "variant": status.variant,
        "target": status.target,
        "attempt": status.attempt,
        "result": status.result,
        "reason": _reason(status.reason),
        "detail": status.detail[:_DETAIL],
        "rollout_id": status.rollout,
        "ready": status.ready,
        "selftest": {name: to_json(tested) for name, tested in status.selftest.items()},
        "reported_at": now,
    }


async def _set_devices(
    transaction: Transaction, current: Sequence[tuple[Report, float]], newest: Mapping[str, _Newest]
) -> None:
    rows = [
        {
            "device": report.device_id,
            "told_generation": report.generation,
            "offset_s": report.at - now,
            "epoch": report.epoch,
            "seq": report.seq,
            "past": newest[report.device_id].past,
            "now": now,
        }
        for report, now in current
    ]
    if rows:
        await transaction.connection.execute(
            update(devices)
            .where(devices.c.id == bindparam("device"))
            .values(
                reported_generation=bindparam("told_generation"),
                clock_offset_s=bindparam("offset_s"),
                report_epoch=bindparam("epoch"),
                report_seq=bindparam("seq"),
                past_epochs=bindparam("past"),
                last_seen=bindparam("now"),
            ),
            rows,
        )
    for report, _ in current:
        if report.facts is not None:
            await transaction.connection.execute(
                update(devices).where(devices.c.id == report.device_id).values(facts=to_json(report.facts))
            )
            transaction.changed.add(report.device_id)


async def _highest(
    transaction: Transaction, table: Table, reports: Sequence[tuple[Report, float]]
) -> dict[tuple[str, str], int]:
    keys = sorted({(report.device_id, report.epoch) for report, _ in reports})
    statement = (
        select(table.c.device_id, table.c.epoch, func.max(table.c.seq))
        .where(tuple_(table.c.device_id, table.c.epoch).in_(keys))
        .group_by(table.c.device_id, table.c.epoch)
    )
    return {(row[0], row[1]): row[2] for row in await transaction.connection.execute(statement)}


def _refused(report: Report, new: set[tuple[str, str, int]]) -> tuple[Refused, ...]:
    return tuple(
        Refused(report.device_id, f"{event.model}/{event.release}", event.reason, event.detail[:200])
        for event in report.events
        if event.reason in REFUSED_ON_DEVICE
        and event.reason is not None
        and (report.device_id, report.epoch, event.seq) in new
    )
