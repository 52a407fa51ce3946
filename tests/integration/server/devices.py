"""Devices that talk to the application as agents do."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx2


@dataclass
class Device:
    """An enrolled device."""

    client: httpx2.AsyncClient
    id: str
    token: str
    epoch: str = field(default_factory=lambda: secrets.token_hex(8))
    seq: int = 0

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    async def poll(self, generation: int | None = None, wait: float = 0) -> httpx2.Response:
        headers = self.headers if generation is None else self.headers | {"If-None-Match": f'"{generation}"'}
        return await self.client.get("/v1/agent/state", params={"wait": wait}, headers=headers)

    def report(self, **fields: Any) -> dict[str, Any]:
        """Give the next report; fields replace what it holds."""
        self.seq += 1
        return {"device_id": self.id, "epoch": self.epoch, "seq": self.seq, "at": 1e9} | fields

    async def send(self, report: Mapping[str, Any]) -> httpx2.Response:
        return await self.client.post("/v1/agent/reports", json=dict(report), headers=self.headers)


async def join_token(client: httpx2.AsyncClient, **body: Any) -> str:
    answer = await client.post("/v1/join-tokens", json=body)
    assert answer.status_code == 201, answer.text
    token: str = answer.json()["token"]
    return token


async def enrol(client: httpx2.AsyncClient, name: str = "", **body: Any) -> Device:
    device_token = secrets.token_urlsafe(32)
    request = {"join_token": await join_token(client), "device_token": device_token, "name": name} | body
    answer = await client.post("/v1/enrol", json=request)
    assert answer.status_code == 201, answer.text
    return Device(client, answer.json()["device_id"], device_token)


async def refusals(client: httpx2.AsyncClient) -> list[dict[str, Any]]:
    """Give the rows of refusals in the audit log."""
    answer = await client.get("/v1/audit", params={"action": "refused", "limit": 1000})
    rows: list[dict[str, Any]] = answer.json()["audit"]
    return rows
