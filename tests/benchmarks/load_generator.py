"""Thousands of devices in one process that speak the protocol and install nothing.

Each device has one connection, as an agent has: it enrols, long-polls, and reports what it was asked to
run as committed. ``python load_generator.py --server URL --join-token T --devices 10000`` runs until its
standard input ends, and answers each line ``polls SECONDS`` or ``counts`` with one line of JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import resource
import secrets
import sys
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from edgeml_devices.messages import (
    Assignment,
    DesiredState,
    Enrolled,
    EnrolRequest,
    Event,
    Facts,
    ModelStatus,
    Report,
    Result,
    State,
)

from edgeml import typed_json

CONNECTING_AT_ONCE = 100
FACTS = Facts(
    target={
        "name": "raspberry-pi-4",
        "title": "Raspberry Pi 4 Model B Rev 1.4",
        "architecture": "aarch64",
        "cores": 4,
        "cpu_features": ["asimd", "crc32", "fp"],
        "memory_bytes": 4 << 30,
        "runtimes": ["litert", "onnxruntime", "openvino"],
    },
    engines={"litert": "2.3.0", "onnxruntime": "1.31.1", "openvino": "2026.4.1"},
    edgeml="0.1.0",
    python="3.11.7",
)


@dataclass
class Device:
    """One device: its connection, and what it knows."""

    host: str
    port: int
    name: str
    token: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    generation: int = -1
    id: str = ""
    seq: int = 0
    epoch: str = field(default_factory=lambda: secrets.token_hex(8))
    running: dict[str, int] = field(default_factory=dict)
    changed_at: dict[str, float] = field(default_factory=dict)
    _reader: asyncio.StreamReader | None = None
    _writer: asyncio.StreamWriter | None = None

    async def call(
        self, method: str, path: str, body: object = None, headers: str = ""
    ) -> tuple[int, dict[str, str], bytes]:
        """Send one request over the kept connection; connect first where there is none."""
        if self._writer is None:
            self._reader, self._writer = await asyncio.open_connection(self.host, self.port, limit=2**14)
        content = b"" if body is None else json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\nHost: {self.host}\r\n"
        head += f"Authorization: Bearer {self.token}\r\n{headers}"
        if content:
            head += f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n"
        self._writer.write(f"{head}\r\n".encode() + content)
        try:
            return await self._answer()
        except (OSError, asyncio.IncompleteReadError):
            self.close()
            raise

    async def _answer(self) -> tuple[int, dict[str, str], bytes]:
        assert self._reader is not None
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        pairs = (line.partition(":") for line in head[1:] if line)
        found = {name.lower(): value.strip() for name, _, value in pairs}
        length = int(found.get("content-length", "0"))
        content = await self._reader.readexactly(length) if length else b""
        return int(head[0].split()[1]), found, content

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._writer = self._reader = None

    async def enrol(self, join_token: str) -> None:
        request = EnrolRequest(join_token, self.token, self.name, FACTS)
        status, _, content = await self.call("POST", "/v1/enrol", typed_json.write(request))
        if status not in {200, 201}:
            raise RuntimeError(f"{self.name}: enrolment gave {status}: {content[:200]!r}")
        self.id = typed_json.read(Enrolled, json.loads(content), "enrolment").device_id

    async def poll(self, wait_s: float) -> DesiredState | None:
        status, _, content = await self.call(
            "GET", f"/v1/agent/state?wait={wait_s:g}", headers=f'If-None-Match: "{self.generation}"\r\n'
        )
        if status == 304:
            return None
        if status != 200:
            raise RuntimeError(f"{self.name}: a poll gave {status}: {content[:200]!r}")
        desired = typed_json.read(DesiredState, json.loads(content), "state")
        self.generation = desired.generation
        return desired

    async def obey(self, desired: DesiredState) -> None:
        """Report every change asked for as probation, then as committed."""
        for model, wanted in desired.models.items():
            if wanted.release is None or wanted.hold or self.running.get(model) == wanted.release:
                continue
            self.changed_at[model] = time.monotonic()
            before = self.running.get(model)
            self.running[model] = wanted.release
            await self._report(model, wanted, State.PROBATION, None, before)
            await self._report(model, wanted, State.COMMITTED, Result.SUCCESSFUL, before)

    async def _report(
        self, model: str, wanted: Assignment, state: State, result: Result | None, before: int | None
    ) -> None:
        at = time.time()
        self.seq += 1
        event = Event(
            self.seq, at, model, wanted.release, wanted.attempt, state, result, rollout=wanted.rollout
        )
        status = ModelStatus(
            state,
            running=wanted.release if result else before,
            target=wanted.release,
            attempt=wanted.attempt,
            result=result,
            rollout=wanted.rollout,
        )
        report = Report(
            self.id, self.epoch, self.seq, at, {model: status}, (event,), generation=self.generation
        )
        code, _, content = await self.call("POST", "/v1/agent/reports", typed_json.write(report))
        if code != 200:
            raise RuntimeError(f"{self.name}: a report gave {code}: {content[:200]!r}")

    async def live(self, wait_s: float) -> None:
        """Poll and obey until cancelled; connections that break are made again."""
        while True:
            try:
                desired = await self.poll(wait_s)
                if desired is not None:
                    await self.obey(desired)
            except (OSError, asyncio.IncompleteReadError):
                await asyncio.sleep(random.uniform(0.5, 2.0))  # noqa: S311 - spreads connections


class Fleet:
    """All devices, and the questions that a benchmark asks."""

    def __init__(self, server: str, count: int) -> None:
        url = urlsplit(server)
        self._devices = [Device(str(url.hostname), url.port or 80, f"sim-{n:05}") for n in range(count)]
        self._lives: list[asyncio.Task[None]] = []

    async def enrol(self, join_token: str) -> float:
        gate = asyncio.Semaphore(CONNECTING_AT_ONCE)

        async def one(device: Device) -> None:
            async with gate:
                await device.enrol(join_token)

        begun = time.monotonic()
        await asyncio.gather(*(one(device) for device in self._devices))
        return time.monotonic() - begun

    async def start(self, wait_s: float) -> None:
        self._lives = [asyncio.create_task(device.live(wait_s)) for device in self._devices]

    async def polls(self, seconds: float, connections: int = 64) -> dict[str, Any]:
        """Poll without waiting, as quickly as answers come, over some further connections."""
        until, counts = time.monotonic() + seconds, [0] * connections

        async def one(place: int) -> None:
            known = self._devices[place]
            device = Device(known.host, known.port, known.name, known.token, known.generation)
            while time.monotonic() < until:
                await device.poll(0)
                counts[place] += 1
            device.close()

        begun = time.monotonic()
        await asyncio.gather(*(one(place) for place in range(connections)))
        return {"polls": sum(counts), "seconds": time.monotonic() - begun}

    def counts(self) -> dict[str, Any]:
        """Say how many run which release, and when the first and the last was told (monotonic clock)."""
        running: dict[str, int] = {}
        times = []
        for device in self._devices:
            for model, release in device.running.items():
                running[f"{model}/{release}"] = running.get(f"{model}/{release}", 0) + 1
                times.append(device.changed_at[model])
        dead = [task.exception() for task in self._lives if task.done() and not task.cancelled()]
        return {
            "running": running,
            "first": min(times, default=None),
            "last": max(times, default=None),
            "polling": sum(device.generation >= 0 for device in self._devices),
            "failed": [str(error) for error in dead][:5],
        }


async def main(arguments: argparse.Namespace) -> None:
    """Enrol, live, and answer questions from standard input."""
    fleet = Fleet(arguments.server, arguments.devices)
    _say({"enrolled": arguments.devices, "seconds": await fleet.enrol(arguments.join_token)})
    await fleet.start(arguments.wait)
    questions = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(questions), sys.stdin
    )
    while line := (await questions.readline()).decode().split():
        _say(await fleet.polls(float(line[1])) if line[0] == "polls" else fleet.counts())


def _say(answer: dict[str, Any]) -> None:
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--server", required=True)
    parser.add_argument("--join-token", required=True)
    parser.add_argument("--devices", type=int, default=10_000)
    parser.add_argument("--wait", type=float, default=55.0)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    asyncio.run(main(parser.parse_args()))
