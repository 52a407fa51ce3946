"""Devices that speak the agents' protocol over HTTP, each a task, to any of several servers."""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx2
from edgeml_devices.messages import Result, State

from tests.integration.rollouts.fleet import MODEL, PI

Outcome = Callable[[str, int, int], Result]
"""By name, release and attempt."""


def always_works(name: str, release: int, attempt: int) -> Result:
    return Result.SUCCESSFUL


@dataclass
class HttpDevice:
    """One device: polls, does what it is told, reports, and says it again until somebody took it."""

    name: str
    servers: Callable[[], Sequence[str]]
    """Addresses of those that may answer now."""
    client: httpx2.AsyncClient
    outcome: Outcome = always_works
    chance: random.Random = field(default_factory=random.Random)
    takes_s: float = 0.0
    """At most, for one release."""
    id: str = ""
    token: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    running: int | None = 1
    done: list[tuple[int, int, Result]] = field(default_factory=list)
    """What it did: release, attempt, result."""
    _epoch: str = field(default_factory=lambda: secrets.token_hex(8))
    _seq: int = 0
    _events: int = -1
    _status: dict[str, Any] = field(default_factory=dict)

    async def call(self, method: str, path: str, **options: Any) -> httpx2.Response:
        """Ask one server after another until one answers."""
        while True:
            for url in self.chance.sample(list(self.servers()), k=len(self.servers())):
                try:
                    answer = await self.client.request(
                        method,
                        f"{url}{path}",
                        headers={"Authorization": f"Bearer {self.token}"} | options.pop("headers", {}),
                        **options,
                    )
                except httpx2.TransportError:
                    continue
                if answer.status_code < 500:
                    return answer
            await asyncio.sleep(0.1)

    async def enrol(self, join_token: str) -> None:
        body = {"join_token": join_token, "device_token": self.token, "name": self.name, "facts": PI}
        answer = await self.call("POST", "/v1/enrol", json=body)
        assert answer.status_code in {200, 201}, answer.text
        self.id = answer.json()["device_id"]
        self._status = {"state": State.IDLE, "running": self.running}
        await self.report()

    async def report(self, *events: dict[str, Any]) -> None:
        self._seq += 1
        body = {"device_id": self.id, "epoch": self._epoch, "seq": self._seq, "at": 1e9}
        body |= {"models": {MODEL: self._status}, "events": list(events)}
        answer = await self.call("POST", "/v1/agent/reports", json=body)
        assert answer.status_code == 200, answer.text

    async def live(self) -> None:
        """Do as an agent does, until cancelled."""
        generation = -1
        while True:
            answer = await self.call(
                "GET", "/v1/agent/state?wait=5", headers={"If-None-Match": f'"{generation}"'}
            )
            if answer.status_code != 200:
                await asyncio.sleep(0.05)
                continue
            desired = answer.json()
            generation = desired["generation"]
            wanted = desired.get("models", {}).get(MODEL)
            if wanted is not None:
                await self._follow(wanted)

    async def _follow(self, wanted: dict[str, Any]) -> None:
        release, attempt = wanted["release"], wanted.get("attempt", 1)
        if any(one[:2] == (release, attempt) for one in self.done):
            return
        base = {"running": self.running, "target": release, "attempt": attempt}
        self._status = base | {"state": State.FETCHING}
        await self.report()
        if wanted.get("hold"):
            self._status = base | {"state": State.SELFTEST, "ready": True}
            await self.report()
            return
        await asyncio.sleep(self.chance.uniform(0, self.takes_s))
        result = self.outcome(self.name, release, attempt)
        if result is Result.SUCCESSFUL:
            self.running = release
        self.done.append((release, attempt, result))
        reason = None if result is Result.SUCCESSFUL else "heartbeat"
        self._events += 1
        event = {"seq": self._events, "at": 1e9, "model": MODEL, "release": release, "attempt": attempt}
        state = State.COMMITTED if result is Result.SUCCESSFUL else State.FAILED
        ended = {"result": result, "reason": reason}
        self._status = base | {"running": self.running, "state": State.IDLE} | ended
        await self.report(event | {"state": state, "rollout": wanted.get("rollout")} | ended)
