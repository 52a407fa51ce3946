"""The tick of alerts: rules are measured, states change, and messages go out, whichever process does it.

A rule is claimed for the time of one evaluation. A change of states and the messages about it are one
transaction; a message is sent at least once, and not given up for a day.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sqlalchemy import delete, select, update
from sqlalchemy.dialects import postgresql, sqlite

from edgeml.errors import EdgemlError, UsageError
from edgeml_devices.server.alerts.delivering import Deliveries
from edgeml_devices.server.alerts.keeping import read_alerts, write_alerts
from edgeml_devices.server.alerts.measuring import Sources, measure
from edgeml_devices.server.alerts.notices import enqueue, is_due, send_waiting
from edgeml_devices.server.alerts.receivers import Receivers, message, read_receivers
from edgeml_devices.server.alerts.rules import Rule, read_rules
from edgeml_devices.server.alerts.states import (
    MOST_INSTANCES,
    Alert,
    AlertState,
    Key,
    advance,
    is_news,
)
from edgeml_devices.server.alerts.tables import alert_rules, alerts
from edgeml_devices.server.refusals import RefusalError
from edgeml_devices.server.transaction import Transaction

_LOG: Final = logging.getLogger(__name__)
EVERY_S: Final = 30.0
_CLAIM_S: Final = 120.0
"""A process that died in an evaluation lets the next one go on after so long."""


@dataclass(slots=True)
class _Watched:
    """A file that is read again when it changes; a slip in it leaves what was read before."""

    path: Path | None
    read: Callable[[Path], Any]
    value: Any
    seen: tuple[int, int] | None = None
    problem: str = ""

    def look(self) -> Any:
        if self.path is None:
            return self.value
        try:
            status = self.path.stat()
            mark = (status.st_mtime_ns, status.st_size)
            if mark != self.seen:
                self.seen = mark
                self.value, self.problem = self.read(self.path), ""
        except (OSError, UsageError) as error:
            if isinstance(error, OSError):
                # it may come back as it was
                self.seen = None
            if str(error) != self.problem:
                _LOG.error("%s; what was read before holds", error)
            self.problem = str(error)
        return self.value


class AlertService:
    """Evaluates the rules of a file. What it remembers only saves work: what matters is in the database."""

    def __init__(
        self,
        sources: Sources,
        rules: Path | None,
        receivers: Path | None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._sources, self._clock = sources, clock
        self._rules = _Watched(rules, read_rules, ())
        self._receivers = _Watched(receivers, read_receivers, Receivers())
        self._deliveries = Deliveries()
        self._evaluated = asyncio.Event()

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The rules as they were read last."""
        found: tuple[Rule, ...] = self._rules.look()
        return found

    @property
    def problems(self) -> list[str]:
        """What is wrong with the files now."""
        return [one.problem for one in (self._rules, self._receivers) if one.problem]

    async def run(self) -> None:
        """Tick until cancelled. Sending goes on beside: no receiver holds up the rules."""
        async with asyncio.TaskGroup() as beside:
            beside.create_task(self._evaluate_again_and_again())
            beside.create_task(self._send_again_and_again())

    async def _evaluate_again_and_again(self) -> None:
        while True:
            try:
                await self.evaluate()
            except Exception:  # noqa: BLE001 - the next tick tries again
                _LOG.exception("alerts could not be evaluated; trying again")
            self._evaluated.set()
            await asyncio.sleep(EVERY_S)

    async def _send_again_and_again(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(EVERY_S):
                    await self._evaluated.wait()
            self._evaluated.clear()
            try:
                await self.send()
            except Exception:  # noqa: BLE001 - the next tick tries again
                _LOG.exception("messages about alerts could not be sent; trying again")

    async def tick(self) -> None:
        """Evaluate and send once."""
        await self.evaluate()
        await self.send()

    async def evaluate(self) -> None:
        """Evaluate every rule that is due and not claimed."""
        rules = self.rules
        await self._forget_others(rules)
        for rule in rules:
            if await self._claim(rule):
                await self._evaluate(rule)

    async def send(self) -> None:
        """Send what waits."""
        found: Receivers = self._receivers.look()
        await send_waiting(self._sources.database, self._deliveries, found, self._clock)

    async def _forget_others(self, rules: Sequence[Rule]) -> None:
        """Drop the states of rules that stand in the file no more."""
        names = {rule.name for rule in rules}
        async with self._sources.database.reading() as connection:
            known = set((await connection.execute(select(alert_rules.c.name))).scalars())
        gone = sorted(known - names)
        if gone and self._rules.path is not None:
            async with self._sources.database.writing() as tx:
                await tx.connection.execute(delete(alert_rules).where(alert_rules.c.name.in_(gone)))
                await tx.connection.execute(delete(alerts).where(alerts.c.rule.in_(gone)))

    async def _claim(self, rule: Rule) -> bool:
        now = self._clock()
        mine = {"expression": rule.expression.text, "claimed_until": now + _CLAIM_S}
        async with self._sources.database.writing() as tx:
            dialect = sqlite if tx.connection.dialect.name == "sqlite" else postgresql
            made = dialect.insert(alert_rules).values(name=rule.name, error="", left_out=0, **mine)
            done = await tx.connection.execute(
                made.on_conflict_do_update(
                    index_elements=[alert_rules.c.name], set_=mine, where=alert_rules.c.claimed_until <= now
                )
            )
            return bool(done.rowcount)

    async def _evaluate(self, rule: Rule) -> None:
        now = self._clock()
        error, values = "", {}
        try:
            values = await measure(self._sources, rule.expression, now)
        except (EdgemlError, RefusalError) as failure:
            error = str(failure)
        except Exception as failure:  # noqa: BLE001 - told, and logged
            # other rules must not suffer for it
            _LOG.exception("the alert rule %s could not be measured", rule.name)
            error = f"it could not be measured ({type(failure).__name__}); the server's log has the details"
        # a bound that is not known decides nothing
        known = {key: value for key, value in values.items() if math.isfinite(value)}
        holding = sorted(key for key, value in known.items() if rule.expression.holds(value))
        held = {key: values[key] for key in holding[:MOST_INSTANCES]}
        async with self._sources.database.writing() as tx:
            if not error:
                await self._advance(tx, rule, held, now)
            await tx.connection.execute(
                update(alert_rules)
                .where(alert_rules.c.name == rule.name)
                .values(
                    evaluated_at=now,
                    claimed_until=now + EVERY_S / 2,
                    error=error,
                    left_out=len(holding) - len(held),
                )
            )

    async def _advance(self, tx: Transaction, rule: Rule, held: Mapping[Key, float], now: float) -> None:
        before = await read_alerts(tx, rule.name)
        after = advance(rule, before, held, now)
        await write_alerts(tx, rule.name, before, after)
        told = [one for one in after.values() if one.state is not AlertState.PENDING]
        firing = any(one.state is AlertState.FIRING for one in told)
        news = is_news(before, after)
        found: Receivers = self._receivers.look()
        for receiver in found.receivers:
            if (
                receiver.wants(rule)
                and told
                and (news or (firing and await is_due(tx, rule.name, receiver.name, now - found.repeat_s)))
            ):
                fresh = [one for one in told if not _was_told(before, one)]
                await enqueue(tx, rule.name, receiver.name, message(rule, receiver.name, fresh), now)


def _was_told(before: Mapping[Key, Alert], alert: Alert) -> bool:
    """Say whether an end was in an earlier message: it is not told twice."""
    known = before.get(alert.key)
    return alert.state is AlertState.RESOLVED and known is not None and known.state is AlertState.RESOLVED
