"""A small fleet in a database: devices that report what the test says, and a clock that the test moves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgeml_devices.messages import Result, State
from edgeml_devices.server.database import Database
from edgeml_devices.server.fleet import desired
from edgeml_devices.server.rollouts import actions
from edgeml_devices.server.rollouts.policy import read_policy
from edgeml_devices.server.rollouts.service import Ticker
from edgeml_devices.server.rollouts.tables import rollout_devices, rollout_waves, rollouts
from edgeml_devices.server.tables import assignments, audit, devices, events, health, releases, statuses
from sqlalchemy import delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeml.histogram import Histogram
from edgeml.manifest import FileEntry, Manifest, Variant
from edgeml.targets import target, target_to_json

MODEL = "kws"
PI = {"target": target_to_json(target("raspberry-pi-4")), "engines": {"litert": "2.1.0"}}


@dataclass(frozen=True)
class Person:
    """Who acts; the server's own are known by tokens."""

    id: str = "0a"
    name: str = "ada"

    def __str__(self) -> str:
        return f"operator:{self.name}"


ADA, BOB = Person(), Person("0b", "bob")


def a_manifest(release: int) -> Manifest:
    """A release with one variant, of one file of 1000 bytes that no other release has, and a shared one."""
    own = FileEntry("litert-int8/model.tflite", 1000, f"{release:064x}")
    shared = FileEntry("labels.txt", 10, "ff" * 32)
    variant = Variant("litert-int8", "litert", "int8_static", (own,), ("raspberry-pi-4",))
    return Manifest(MODEL, release, (), (), (variant,), (shared,), labels="labels.txt")


async def manifest_of(_: AsyncConnection, model: str, release: int) -> Manifest:
    assert model == MODEL
    return a_manifest(release)


class Fleet:
    """Devices ``d000`` … and one ticker; time stands still until the test moves it."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.now = 1_000_000.0
        self.set_forward_s = 0.0
        self.restart()
        self._health = 0

    def restart(self) -> None:
        """Begin anew with what the database holds, as a server process does."""
        self.ticker = Ticker(
            self.database, manifest_of, lambda: self.now, lambda: self.now - self.set_forward_s
        )

    def set_clock_forward(self, seconds: float) -> None:
        """Have the clock jump, though no time went by."""
        self.now += seconds
        self.set_forward_s += seconds

    async def add(
        self, number: int, *, labels: Mapping[str, str] | None = None, facts: Any = PI, runs: int | None = 1
    ) -> list[str]:
        async with self.database.writing() as tx:
            known = len((await tx.connection.execute(select(devices.c.id))).all())
            ids = [f"d{place:03d}" for place in range(known, known + number)]
            rows = [
                {
                    "id": one,
                    "name": f"name-{one}",
                    "token_sha256": one,
                    "labels": dict(labels or {}),
                    "facts": facts,
                    "enrolled_at": self.now,
                    "last_seen": self.now,
                }
                for one in ids
            ]
            await tx.connection.execute(insert(devices), rows)
        for one in ids:
            await self.say(one, State.IDLE, running=runs)
        return ids

    async def publish(self, *numbers: int) -> None:
        rows = [
            {
                "model": MODEL,
                "release": number,
                "family": "f",
                "manifest_sha256": f"{number:064x}",
                "size_bytes": 1010,
                "published_at": self.now,
                "published_by": "admin:ada",
            }
            for number in numbers
        ]
        async with self.database.writing() as tx:
            await tx.connection.execute(insert(releases), rows)

    # --- what devices say

    async def say(
        self,
        device: str,
        state: State,
        *,
        running: int | None,
        target: int | None = None,
        attempt: int = 1,
        result: Result | None = None,
        reason: str | None = None,
        ready: bool = False,
    ) -> None:
        row = {
            "device_id": device,
            "model": MODEL,
            "state": state,
            "running": running,
            "target": target,
            "attempt": attempt,
            "result": result,
            "reason": reason,
            "ready": ready,
            "reported_at": self.now,
        }
        async with self.database.writing() as tx:
            mine = (statuses.c.device_id == device) & (statuses.c.model == MODEL)
            await tx.connection.execute(delete(statuses).where(mine))
            await tx.connection.execute(insert(statuses).values(row))
            await tx.connection.execute(
                update(devices).where(devices.c.id == device).values(last_seen=self.now)
            )

    async def commit(self, *ids: str) -> None:
        """Have devices commit what is assigned to them."""
        there = await self.assigned()
        for one in ids:
            release, attempt = there[one].release, there[one].attempt
            await self.say(
                one,
                State.IDLE,
                running=release,
                target=release,
                attempt=attempt,
                result=Result.SUCCESSFUL,
            )

    async def fail(self, *ids: str, reason: str = "heartbeat", running: int | None = 1) -> None:
        there = await self.assigned()
        for one in ids:
            await self.say(
                one,
                State.IDLE,
                running=running,
                target=there[one].release,
                attempt=there[one].attempt,
                result=Result.FAILED_ROLLBACK_COMPLETE,
                reason=reason,
            )

    async def at(self, state: State, *ids: str, running: int | None = 1) -> None:
        """Have devices report a state of the attempt that is assigned."""
        there = await self.assigned()
        for one in ids:
            await self.say(one, state, running=running, target=there[one].release, attempt=there[one].attempt)

    async def tell(self, device: str, release: int, attempt: int, result: Result) -> None:
        """Put the end of an attempt into the history."""
        async with self.database.writing() as tx:
            await tx.connection.execute(
                insert(events).values(
                    device_id=device,
                    epoch="e",
                    seq=1,
                    at=self.now,
                    received_at=self.now,
                    model=MODEL,
                    release=release,
                    attempt=attempt,
                    state=State.COMMITTED,
                    result=result,
                )
            )

    async def measure(
        self,
        device: str,
        release: int,
        *,
        calls: int,
        latency_ms: float = 10.0,
        errors: int = 0,
        latency_counts: object = None,
    ) -> None:
        self._health += 1
        counts = Histogram()
        counts.add(latency_ms, calls)
        async with self.database.writing() as tx:
            await tx.connection.execute(
                insert(health).values(
                    device_id=device,
                    epoch="e",
                    seq=self._health,
                    at=self.now,
                    received_at=self.now,
                    duration_s=10.0,
                    model=MODEL,
                    release=release,
                    variant="litert-int8",
                    processes=1,
                    calls=calls,
                    errors=errors,
                    latency_counts=counts.to_json() if latency_counts is None else latency_counts,
                )
            )

    # --- what operators do

    async def assign_by_hand(self, device: str, release: int) -> None:
        async with self.database.writing() as tx:
            await desired.assign(tx, [device], MODEL, release=release, now=self.now)

    async def retire(self, *ids: str) -> None:
        async with self.database.writing() as tx:
            await tx.connection.execute(
                update(devices).where(devices.c.id.in_(ids)).values(retired_at=self.now)
            )

    async def withdraw(self, release: int) -> None:
        async with self.database.writing() as tx:
            mine = (releases.c.model == MODEL) & (releases.c.release == release)
            await tx.connection.execute(update(releases).where(mine).values(withdrawn_at=self.now))

    async def create(self, by: Person = ADA, **policy: Any) -> str:
        data = {"model": MODEL, "release": 2, "selector": ""} | policy
        async with self.database.writing() as tx:
            return await actions.create(tx, by, read_policy(data))

    async def start(self, **policy: Any) -> str:
        rollout_id = await self.create(**policy)
        await self.act("start", rollout_id)
        return rollout_id

    async def act(self, verb: str, rollout_id: str, *more: Any, by: Person = ADA) -> Any:
        async with self.database.writing() as tx:
            done = await getattr(actions, verb)(tx, by, rollout_id, *more)
        # what operators do has the real time; the test's clock counts
        async with self.database.writing() as tx:
            mine = rollouts.c.id == rollout_id
            times = {"changed_at": self.now}
            if verb == "start":
                times["started_at"] = self.now
            await tx.connection.execute(update(rollouts).where(mine).values(times))
            late = (rollout_waves.c.rollout_id == rollout_id) & (rollout_waves.c.released_at > self.now * 1.5)
            await tx.connection.execute(
                update(rollout_waves).where(late).values(released_at=self.now, measured_from=self.now)
            )
        return done

    async def tick(self, seconds: float = 1.0) -> None:
        self.now += seconds
        await self.ticker.tick_all()

    # --- what there is

    async def assigned(self) -> dict[str, Any]:
        async with self.database.reading() as connection:
            rows = await connection.execute(select(assignments).where(assignments.c.model == MODEL))
            return {row.device_id: row for row in rows}

    async def rollout(self, rollout_id: str) -> Any:
        async with self.database.reading() as connection:
            return (await connection.execute(select(rollouts).where(rollouts.c.id == rollout_id))).one()

    async def state(self, rollout_id: str) -> str:
        return str((await self.rollout(rollout_id)).state)

    async def rows(self, rollout_id: str) -> dict[str, Any]:
        async with self.database.reading() as connection:
            found = await connection.execute(
                select(rollout_devices).where(rollout_devices.c.rollout_id == rollout_id)
            )
            return {row.device_id: row for row in found}

    async def states(self, rollout_id: str) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for one, row in sorted((await self.rows(rollout_id)).items()):
            found.setdefault(row.state, []).append(one)
        return found

    async def in_wave(self, rollout_id: str, wave: int) -> list[str]:
        return sorted(one for one, row in (await self.rows(rollout_id)).items() if row.wave == wave)

    async def log(self, action: str) -> Sequence[Any]:
        async with self.database.reading() as connection:
            found = await connection.execute(
                select(audit).where(audit.c.action == action).order_by(audit.c.id)
            )
            return found.all()
