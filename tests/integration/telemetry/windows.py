"""Made-up telemetry: reports as devices send them, one device's after another."""

from __future__ import annotations

import json
import math
import random
import secrets
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import httpx2
import msgspec

from edgeml.telemetry.exponential import histogram_of
from edgeml.telemetry.report import CONTENT_JSON, CONTENT_MSGPACK, Batch, ModelWindow, Report, Sample, Summary

LABELS = [f"class_{number:02}" for number in range(20)]


def link(chance: random.Random) -> str:
    return f"{chance.getrandbits(64):016x}"


def model_window(
    chance: random.Random, calls: int = 60, *, model: str = "kws", release: int = 1
) -> ModelWindow:
    """A window with all that a device can tell of a model."""
    stages = (("total", 0.05), ("run", 0.045), ("preprocess", 0.003))
    classes: dict[str, int] = {}
    for _ in range(calls):
        label = LABELS[min(len(LABELS) - 1, int(chance.expovariate(0.2)))]
        classes[label] = classes.get(label, 0) + 1
    return ModelWindow(
        model,
        release,
        "int8",
        "litert",
        calls,
        {"InferenceError": 1} if chance.random() < 0.1 else {},
        {
            stage: histogram_of(chance.lognormvariate(math.log(middle_s), 0.15) for _ in range(calls))
            for stage, middle_s in stages
        },
        classes,
        histogram_of(chance.uniform(0.4, 1) for _ in range(calls)),
        {f"feature_{number}": _bins(chance, calls) for number in range(4)},
        tuple(chance.gauss(0, 8) for _ in range(64)),
        calls,
        "5f" * 32,
        tuple(_sample(chance) for _ in range(5)),
        processes=2,
    )


def _bins(chance: random.Random, calls: int) -> tuple[int, ...]:
    counts = [0] * 33
    for _ in range(calls):
        counts[min(32, max(0, int(chance.gauss(16, 5))))] += 1
    return tuple(counts)


def _sample(chance: random.Random) -> Sample:
    return Sample(
        chance.uniform(0, 60), "random", chance.random() / 10, chance.choice(LABELS), chance.random()
    )


@dataclass
class Telemetry:
    """One device's stream: :meth:`next` makes the window after the last one."""

    chance: random.Random = field(default_factory=random.Random)
    epoch: str = field(default_factory=lambda: secrets.token_hex(16))
    boot_id: str = field(default_factory=lambda: secrets.token_hex(16))
    seq: int = -1
    prev: str = ""
    uptime_s: float = 100.0

    def next(self, at: float, **fields: Any) -> Report:
        """Give the window that ends at a moment; fields replace what it holds."""
        self.seq += 1
        self.uptime_s += 60
        told = {
            "seq": self.seq,
            "link": link(self.chance),
            "boot_id": self.boot_id,
            "start_s": self.uptime_s - 60,
            "end_s": self.uptime_s,
            "at": at,
            "prev": self.prev,
            "clock": "synced",
            "models": (_at(at, model_window(self.chance)),),
            "system": {
                name: Summary(least, least + 1.25, least + 2.5, 12)
                for name, least in (("cpu_utilization", 0.25), ("temperature_celsius", 61.3))
            },
            "energy_joules": 81.25,
        } | fields
        report = Report(**told)
        self.prev = report.link
        return report

    def batch(self, reports: Sequence[Report], at: float) -> Batch:
        return Batch(self.epoch, self.boot_id, self.uptime_s + 1, at, tuple(reports))


def _at(at: float, window: ModelWindow) -> ModelWindow:
    return replace(window, samples=tuple(replace(one, at=at - one.at) for one in window.samples))


async def post(
    client: httpx2.AsyncClient, token: str, batch: Batch, *, as_json: bool = False, encoding: str = "deflate"
) -> httpx2.Response:
    """Send a batch as a device does."""
    body = _json(batch) if as_json else msgspec.msgpack.encode(batch)
    headers = {
        "Authorization": f"Bearer {token}",
        "Content-Type": CONTENT_JSON if as_json else CONTENT_MSGPACK,
    }
    if encoding:
        headers["Content-Encoding"] = encoding
        body = _compressed(body, encoding)
    return await client.post("/v1/reports", content=body, headers=headers)


def _compressed(body: bytes, encoding: str) -> bytes:
    if encoding == "gzip":
        compressor = zlib.compressobj(wbits=31)
        return compressor.compress(body) + compressor.flush()
    return zlib.compress(body)


def _json(batch: Batch) -> bytes:
    """JSON has no infinity: an empty histogram leaves out its least and greatest value."""

    def without(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: without(value) for key, value in node.items() if not _infinite(value)}
        return [without(value) for value in node] if isinstance(node, list) else node

    return json.dumps(without(msgspec.to_builtins(batch))).encode()


def _infinite(value: Any) -> bool:
    return isinstance(value, float) and math.isinf(value)
