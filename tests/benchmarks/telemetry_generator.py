"""Devices that send telemetry as quickly as it is taken, each over a connection of its own.

``python telemetry_generator.py --server URL --join-token T --devices 100 --batch 1 --reports 20000`` makes
all requests first, then sends them, and prints one line of JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import secrets
import statistics
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from edgeml.telemetry.encoding import batch_to_bytes, report_to_json
from edgeml.telemetry.report import CONTENT_MSGPACK, Batch, Report
from tests.integration.telemetry.windows import Telemetry

WINDOWS = 200
"""Different windows that reports are made of."""


@dataclass
class Device:
    """Its token, and what it is going to send."""

    token: str
    requests: list[bytes]


class Connection(asyncio.Protocol):
    """Sends one request after another; an answer that is not 200 ends it."""

    def __init__(self, requests: list[bytes], done: asyncio.Future[None], times: list[float]) -> None:
        self._requests = iter(requests)
        self._done = done
        self._times = times
        self._sent_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._next()

    def data_received(self, data: bytes) -> None:
        if data.startswith(b"HTTP/1.1 ") and not data.startswith(b"HTTP/1.1 200"):
            self._done.set_exception(RuntimeError(data.decode()))
        elif b"acked_through" in data:
            # the head may come before it
            self._times.append(time.perf_counter() - self._sent_at)
            self._next()

    def _next(self) -> None:
        request = next(self._requests, None)
        if request is None:
            self._done.set_result(None)
            return
        self._sent_at = time.perf_counter()
        self._transport.write(request)  # type: ignore[attr-defined]


def enrol(server: str, join_token: str, number: int) -> str:
    token = secrets.token_urlsafe(32)
    body = {"join_token": join_token, "device_token": token, "name": f"sender-{number}"}
    content, headers = json.dumps(body).encode(), {"Content-Type": "application/json"}
    request = Request(f"{server}/v1/enrol", content, headers)  # noqa: S310 - the benchmark's own server
    with urlopen(request) as response:  # noqa: S310 - as above
        response.read()
    return token


def requests_of(token: str, templates: list[Report], reports: int, batch: int, end: float) -> list[bytes]:
    """Give requests with ``reports`` reports, a minute apart, the last of which ended just now."""
    chance = random.Random(token)  # noqa: S311 - made-up data
    epoch, boot, prev = secrets.token_hex(16), secrets.token_hex(16), ""
    found = []
    for first in range(0, reports, batch):
        several = []
        for seq in range(first, first + batch):
            at, link = end - 60.0 * (reports - seq), f"{chance.getrandbits(64):016x}"
            template = chance.choice(templates)
            shift = at - template.at
            models = tuple(
                replace(one, samples=tuple(replace(kept, at=kept.at + shift) for kept in one.samples))
                for one in template.models
            )
            several.append(
                replace(template, seq=seq, link=link, prev=prev, at=at, boot_id=boot, models=models)
            )
            prev = link
        reports_json = [report_to_json(one) for one in several]
        body = batch_to_bytes(Batch(epoch, boot, 1e9, end), reports_json).body
        head = (
            f"POST /v1/reports HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {token}\r\n"
            f"Content-Type: {CONTENT_MSGPACK}\r\nContent-Encoding: deflate\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        found.append(head.encode() + body)
    return found


async def send(server: str, devices: list[Device]) -> tuple[float, list[float]]:
    """Send everything; give seconds, and the time of each answer."""
    url = urlsplit(server)
    loop = asyncio.get_running_loop()
    times: list[float] = []
    ends = []
    begun = time.perf_counter()
    for device in devices:
        done: asyncio.Future[None] = loop.create_future()
        ends.append(done)
        await loop.create_connection(
            lambda d=device, e=done: Connection(d.requests, e, times), url.hostname, url.port
        )
    await asyncio.gather(*ends)
    return time.perf_counter() - begun, times


def main(arguments: argparse.Namespace) -> None:
    """Make, wait for a line, send, say."""
    chance, end = random.Random(7), time.time() - 1  # noqa: S311 - made-up data
    stream = Telemetry(chance)
    templates = [stream.next(end) for _ in range(WINDOWS)]
    each = arguments.reports // arguments.devices
    each -= each % arguments.batch
    devices = []
    for number in range(arguments.devices):
        token = enrol(arguments.server, arguments.join_token, number)
        devices.append(Device(token, requests_of(token, templates, each, arguments.batch, end)))
    print("ready", flush=True)
    sys.stdin.readline()
    seconds, times = uvloop.run(send(arguments.server, devices))
    times.sort()
    print(
        json.dumps(
            {
                "reports": each * arguments.devices,
                "seconds": seconds,
                "p50_s": statistics.median(times),
                "p99_s": times[int(len(times) * 0.99)],
                "request_bytes": sum(map(len, devices[0].requests)) / each,
            }
        ),
        flush=True,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--server", required=True)
    parser.add_argument("--join-token", required=True)
    parser.add_argument("--devices", type=int, default=100)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--reports", type=int, default=20_000)
    main(parser.parse_args())
