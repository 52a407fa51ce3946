"""Devices that send telemetry to a server that is killed, over a network that loses answers."""

from __future__ import annotations

import http.client
import json
import random
import secrets
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import msgspec
from edgeml_devices.server.settings import ServerSettings
from edgeml_devices.server.telemetry.opening import open_store
from edgeml_devices.server.telemetry.store import Selection

from edgeml.telemetry.report import CONTENT_MSGPACK, Batch, Report
from tests.integration.server_process import ServerProcess
from tests.integration.telemetry.windows import Telemetry
from tests.waiting import eventually

LOST_ANSWERS = 0.15
UNSENT = 200
"""Windows that a device makes ahead of what was acknowledged."""


@dataclass
class Sender(threading.Thread):
    """One device. ``keyed`` is false in the control: each attempt is another stream."""

    server: ServerProcess
    token: str
    seed: int
    keyed: bool = True
    made: list[Report] = field(default_factory=list)
    repeated: int = 0
    """Batches that were sent again though they had been answered."""
    failure: str = ""

    def __post_init__(self) -> None:
        super().__init__(daemon=True)
        self.acked = -1
        self.ending = threading.Event()
        self._chance = random.Random(self.seed)  # noqa: S311 - made-up data
        self._telemetry = Telemetry(self._chance)
        self._begin = time.time() - 20 * 86400 + self.seed / 1000

    def __hash__(self) -> int:
        return id(self)

    def run(self) -> None:
        """Make windows and send them; once told to end, until all are acknowledged."""
        while not self.failure and not (self.ending.is_set() and self.acked + 1 == len(self.made)):
            if not self.ending.is_set() and len(self.made) - self.acked < UNSENT:
                for _ in range(self._chance.randint(1, 4)):
                    self.made.append(self._telemetry.next(self._begin + len(self.made), models=()))
            try:
                self._send()
            except (OSError, http.client.HTTPException):
                time.sleep(0.05)

    def _send(self) -> None:
        batch = self.made[self.acked + 1 :][: self._chance.randint(1, 64)]
        epoch = self._telemetry.epoch if self.keyed else secrets.token_hex(16)
        body = msgspec.msgpack.encode(Batch(epoch, "boot", 1e9, time.time(), tuple(batch)))
        url = urlsplit(self.server.url)
        connection = http.client.HTTPConnection(str(url.hostname), url.port, timeout=30)
        try:
            headers = {"Authorization": f"Bearer {self.token}", "Content-Type": CONTENT_MSGPACK}
            connection.request("POST", "/v1/reports", body, headers)
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        if answer.status == 200 and self._chance.random() < LOST_ANSWERS:
            self.repeated += 1
        elif answer.status == 200:
            self.acked = json.loads(content)["acked_through"]
        elif answer.status < 500:
            self.failure = f"{answer.status}: {content.decode()}"


def enrolled(server: ServerProcess, name: str, **facts: Any) -> str:
    """Let a device in, with what it says of itself; give its token."""
    join = server.call("POST", "/v1/join-tokens", {"uses": 1})[1]["token"]
    token = secrets.token_urlsafe(32)
    body = {"join_token": join, "device_token": token, "name": name, "facts": facts or None}
    assert server.call("POST", "/v1/enrol", body, token="")[0] == 201
    return token


async def stored_times(settings: ServerSettings) -> Counter[int]:
    """Give how often each window is stored, by the µs at which it ended."""
    store = await open_store(settings)
    try:
        selection = Selection(0, 4e9)
        return Counter([round(row.at * 1e6) async for piece in store.system(selection) for row in piece])
    finally:
        await store.close()


def ride(server: ServerProcess, kills: int, senders: list[Sender], pause_s: tuple[float, float]) -> None:
    """Kill and start a running server so many times while devices send; wait until all is acknowledged."""
    chance = random.Random(kills)  # noqa: S311 - no secret
    port = urlsplit(server.url).port or 0
    for sender in senders:
        sender.start()
    for _ in range(kills):
        time.sleep(chance.uniform(*pause_s))
        server.kill()
        server.start(port=port)
    eventually(lambda: any(sender.repeated or sender.failure for sender in senders), "an answer is lost")
    for sender in senders:
        sender.ending.set()
    for sender in senders:
        sender.join(240)
        assert not sender.failure, sender.failure
        assert not sender.is_alive(), "a device did not get rid of its windows"
