"""The tick: one transaction for each rollout, under its lock, from what the database holds to what is next.

Several processes may tick the same rollouts, and any of them may be killed at any point: a tick is whole or
it did not happen, and the next one goes on from the rows.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from typing import Final

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeml.errors import EdgemlError
from edgeml.manifest import Manifest
from edgeml_devices.server import audit
from edgeml_devices.server.database import Database
from edgeml_devices.server.rollouts import gates, members, records, starting, stopping, windows
from edgeml_devices.server.rollouts.engine import Action, Counts, RolloutView, Verdict, judge, withdrawal
from edgeml_devices.server.rollouts.fit import Fit
from edgeml_devices.server.rollouts.outcomes import settle_devices
from edgeml_devices.server.rollouts.policy import RolloutState
from edgeml_devices.server.rollouts.records import Rollout
from edgeml_devices.server.rollouts.tables import rollout_waves
from edgeml_devices.server.tables import releases
from edgeml_devices.server.transaction import Transaction

ManifestOf = Callable[[AsyncConnection, str, int], Awaitable[Manifest]]
"""Gives the manifest of a model's release."""
_LOG = logging.getLogger(__name__)
JOIN_EVERY_S: Final = 5.0
"""How often a process looks for devices that entered a group."""
_JUMP_S: Final = 5.0
"""A clock that gains so much between two ticks was set, or the machine slept."""
_AT_ONCE: Final = 40
"""Ticks of one rollout in a row, while there is more to do."""


class Ticker:
    """Ticks the rollouts of one database. What it remembers only saves work: nothing is lost with it."""

    def __init__(
        self,
        database: Database,
        manifest_of: ManifestOf,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._manifest_of = manifest_of
        self._clock = clock
        self._monotonic = monotonic
        self._listening_from = monotonic()
        self._ahead_s = clock() - self._listening_from
        self._fits: dict[tuple[str, int], Fit] = {}
        self._joined_at: dict[str, float] = {}

    async def tick_all(self) -> None:
        """Tick every active rollout once, and those that have more to do until they have not."""
        async with self._database.reading() as connection:
            ids = await records.active_ids(connection)
        self._joined_at = {one: at for one, at in self._joined_at.items() if one in ids}
        for rollout_id in ids:
            try:
                for _ in range(_AT_ONCE):
                    if not await self.tick(rollout_id):
                        break
            except Exception:  # noqa: BLE001 - the next tick tries again
                _LOG.exception("rollout %s could not be ticked; trying again", rollout_id)

    async def tick(self, rollout_id: str) -> bool:
        """Do what is next in one rollout; say whether there is more to do at once."""
        now = self._clock()
        listening_since = self._listening_since(now)
        async with self._database.writing() as tx:
            rollout = await records.try_lock(tx, rollout_id)
            if rollout is None:
                return False
            match rollout.state:
                case RolloutState.ABORTING:
                    return await _abort(tx, rollout, now, listening_since)
                case RolloutState.PAUSED:
                    return await _stand(tx, rollout, now, listening_since)
                case _:
                    return await self._run(tx, rollout, now, listening_since)

    def _listening_since(self, now: float) -> float:
        """Give since when devices are heard of, by the clock as it goes now; a jump forward begins anew."""
        at = self._monotonic()
        if now - at - self._ahead_s > _JUMP_S:
            self._listening_from = at
        self._ahead_s = now - at
        return now - (at - self._listening_from)

    async def _run(self, tx: Transaction, rollout: Rollout, now: float, listening_since: float) -> bool:
        if rollout.policy.budget is not None:
            # before any device is locked, so that no two transactions wait for each other
            await records.lock_budgets(tx)
        if now - self._joined_at.get(rollout.id, 0.0) >= JOIN_EVERY_S:
            if await members.take_in(tx, rollout, now):
                return True
            self._joined_at[rollout.id] = now
        if await settle_devices(tx, rollout, now, listening_since):
            return True
        if await gates.gather(tx, rollout, now):
            return True
        view = await _view(tx.connection, rollout, now)
        verdict = judge(view, now)
        await _mark(tx, rollout, view, verdict)
        if verdict.action is Action.KEEP:
            try:
                fit = await self._fit(tx.connection, rollout)
            except EdgemlError as error:
                await records.set_reason(tx, rollout, f"starts no device: {error}")
                return False
            await records.set_reason(tx, rollout, verdict.reason)
            is_open = windows.is_open(rollout.policy, now)
            return await starting.fill_places(tx, rollout, fit, now, is_open=is_open)
        await _act(tx, rollout, verdict, now)
        return verdict.action in {Action.ADVANCE, Action.ABORT}

    async def _fit(self, connection: AsyncConnection, rollout: Rollout) -> Fit:
        key = (rollout.policy.model, rollout.policy.release)
        if key not in self._fits:
            self._fits[key] = Fit(await self._manifest_of(connection, *key))
        return self._fits[key]


async def _stand(tx: Transaction, rollout: Rollout, now: float, listening_since: float) -> bool:
    """Start nothing; a release that was withdrawn ends a paused rollout, too."""
    more = await settle_devices(tx, rollout, now, listening_since)
    if await _is_withdrawn(tx.connection, rollout):
        await _act(tx, rollout, withdrawal(rollout.policy), now)
        return True
    if not windows.is_open(rollout.policy, now):
        more |= await starting.hold_back(tx, rollout, now)
    return more


async def _view(connection: AsyncConnection, rollout: Rollout, now: float) -> RolloutView:
    counts = await records.count(connection, rollout.id)
    waves = await records.waves(connection, rollout, counts)
    readings = await gates.current(connection, rollout, counts.get(rollout.wave, Counts()), now)
    return RolloutView(rollout.policy, waves, readings, await _is_withdrawn(connection, rollout))


async def _is_withdrawn(connection: AsyncConnection, rollout: Rollout) -> bool:
    withdrawn = (
        select(releases.c.withdrawn_at)
        .where(releases.c.model == rollout.policy.model, releases.c.release == rollout.policy.release)
        .limit(1)
    )
    return (await connection.execute(withdrawn)).scalar() is not None


async def _mark(tx: Transaction, rollout: Rollout, view: RolloutView, verdict: Verdict) -> None:
    """Keep since when the current wave's threshold holds, and since when it lacks data."""
    wave = view.waves[-1]
    marks = (verdict.reached_at, verdict.data_missing_since)
    if marks != (wave.reached_at, wave.data_missing_since):
        await tx.connection.execute(
            update(rollout_waves)
            .where(rollout_waves.c.rollout_id == rollout.id, rollout_waves.c.wave == wave.number)
            .values(reached_at=marks[0], data_missing_since=marks[1])
        )


async def _act(tx: Transaction, rollout: Rollout, verdict: Verdict, now: float) -> None:
    if verdict.action is Action.ADVANCE:
        await members.release_wave(tx, rollout, rollout.wave + 1, now)
        return
    name, state = {
        Action.PAUSE: ("rollout.pause", RolloutState.PAUSED),
        Action.ABORT: ("rollout.abort", RolloutState.ABORTING),
        Action.FINISH: ("rollout.finish", RolloutState.FINISHED),
    }[verdict.action]
    await records.set_state(tx, rollout, state, verdict.reason, now)
    await audit.record(tx, "server", name, rollout.id, {"reason": verdict.reason})


async def _abort(tx: Transaction, rollout: Rollout, now: float, listening_since: float) -> bool:
    is_done, more = await stopping.abort_step(tx, rollout, now, listening_since)
    if is_done:
        await records.set_state(tx, rollout, RolloutState.ABORTED, rollout.reason, now)
        await audit.record(tx, "server", "rollout.aborted", rollout.id)
    return more
