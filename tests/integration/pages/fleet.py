"""Rows that a fleet of some weeks leaves in the database."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Mapping
from typing import Any

from edgeml_devices.server.database import Database
from edgeml_devices.server.rollouts.policy import Policy, write_policy
from edgeml_devices.server.rollouts.tables import rollout_devices, rollout_tallies, rollout_waves, rollouts
from edgeml_devices.server.tables import assignments, devices, events, releases, signed_metadata, statuses
from sqlalchemy import Table, insert

from edgeml.histogram import Histogram

DAY_S = 86_400.0
PI = {
    "target": {
        "name": "raspberry-pi-4",
        "architecture": "aarch64",
        "cores": 4,
        "memory_bytes": 4_000_000_000,
    },
    "engines": {"litert": "2.0.3"},
    "edgeml": "0.3.0",
    "python": "3.11.2",
    "system": "Linux 6.6",
    "disk_free_bytes": 21_000_000_000,
    "disk_total_bytes": 31_000_000_000,
}


class Fleet:
    """Adds rows as the server would have."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.now = time.time()

    async def add(self, table: Table, *rows: Mapping[str, Any]) -> None:
        async with self.database.writing() as transaction:
            await transaction.connection.execute(insert(table), [dict(row) for row in rows])

    async def devices(self, names: Iterable[str], **values: Any) -> list[str]:
        """Add devices that were seen 5 seconds ago; give their ids."""
        rows = [
            {
                "id": hashlib.sha256(name.encode()).hexdigest()[:16],
                "name": name,
                "token_sha256": hashlib.sha256(f"token of {name}".encode()).hexdigest(),
                "labels": {},
                "facts": PI,
                "enrolled_at": self.now - 30 * DAY_S,
                "last_seen": self.now - 5,
                "generation": 1,
            }
            | values
            for name in names
        ]
        await self.add(devices, *rows)
        return [row["id"] for row in rows]

    async def status(self, device: str, model: str = "kws", **values: Any) -> None:
        row = {"state": "IDLE", "running": 3, "reported_at": self.now - 9, "attempt": 1, "detail": ""}
        await self.add(statuses, {"device_id": device, "model": model, "ready": False} | row | values)

    async def assignment(self, device: str, model: str = "kws", **values: Any) -> None:
        row = {"release": 3, "attempt": 1, "hold": False, "on_abort": "finish", "changed_at": self.now}
        await self.add(assignments, {"device_id": device, "model": model} | row | values)

    async def events(self, device: str, number: int, **values: Any) -> None:
        """Add events with seq 0 … number - 1; each says so in its detail."""
        await self.add(
            events,
            *(
                {
                    "device_id": device,
                    "epoch": "e",
                    "seq": seq,
                    "at": self.now,
                    "received_at": self.now,
                    "model": "kws",
                    "release": 3,
                    "attempt": 1,
                    "state": "FETCHING",
                    "detail": f"event {seq}.",
                }
                | values
                for seq in range(number)
            ),
        )

    async def release(self, model: str, number: int, **values: Any) -> None:
        row = {
            "model": model,
            "release": number,
            "family": model,
            "manifest_sha256": f"{number:064x}",
            "size_bytes": 1_250_000,
            "published_at": self.now - DAY_S,
            "published_by": "operator:grace",
        }
        await self.add(releases, row | values)

    async def metadata(self, role: str, expires_in_s: float, version: int = 1) -> None:
        row = {"role": role, "version": version, "content": b"{}", "stored_at": self.now}
        await self.add(signed_metadata, row | {"expires_at": self.now + expires_in_s})

    async def rollout(self, id_: str, policy: Policy, **values: Any) -> None:
        row = {
            "id": id_,
            "model": policy.model,
            "release": policy.release,
            "policy": write_policy(policy),
            "selector": policy.selector or "",
            "priority": 0,
            "state": "RUNNING",
            "reason": "",
            "wave": 1,
            "created_at": self.now - 600,
            "created_by": "operator:grace",
            "creator_id": "t1",
            "started_at": self.now - 500,
            "changed_at": self.now - 500,
        }
        await self.add(rollouts, row | values)

    async def wave(self, rollout: str, number: int, devices_by_state: Mapping[str, list[str]]) -> None:
        """Add a released wave; ``STATE:reason`` gives the state a reason."""
        row = {"rollout_id": rollout, "wave": number, "released_at": self.now - 400}
        await self.add(rollout_waves, row | {"measured_from": self.now - 400})
        await self.members(rollout, number, devices_by_state)

    async def members(
        self, rollout: str, wave: int | None, devices_by_state: Mapping[str, list[str]]
    ) -> None:
        rows = []
        for text, ids in devices_by_state.items():
            state, _, reason = text.partition(":")
            rows += [
                {
                    "rollout_id": rollout,
                    "device_id": id_,
                    "wave": wave,
                    "place": place,
                    "late": False,
                    "state": state,
                    "reason": reason or None,
                    "detail": f"{reason} of {id_}" if reason else "",
                    "forgiven": False,
                    "attempt": 1,
                    "ended_at": self.now - 60,
                }
                for place, id_ in enumerate(ids)
            ]
        await self.add(rollout_devices, *rows)

    async def tally(self, rollout: str, side: str, calls: int, latency_ms: float) -> None:
        row = {"rollout_id": rollout, "side": side, "target": "raspberry-pi-4", "calls": calls, "errors": 0}
        counts = Histogram.of([latency_ms] * calls).to_json()
        await self.add(rollout_tallies, row | {"latency_counts": counts})
