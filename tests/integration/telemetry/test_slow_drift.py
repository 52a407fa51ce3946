"""Small drift that lasts, asked of a server: both stores say the same, and a calm fleet is calm."""

from __future__ import annotations

import random
import time
from dataclasses import replace

import numpy as np
import pytest
from edgeml_devices.server.telemetry.slow_drift import SlowDriftWatch
from edgeml_devices.server.telemetry.store import Incoming, Selection

from edgeml.reference_data import feature_reference
from edgeml.telemetry.reference import FeatureReference, Reference, reference_to_json, with_digest
from edgeml.telemetry.report import ModelWindow, Report
from tests.integration.server import signed_repository as sr
from tests.integration.server.devices import enrol
from tests.integration.telemetry.windows import Telemetry, post

pytestmark = pytest.mark.anyio
HOURS = 96
HOUR_S = 3600.0
RAMP = 0.6
"""Standard deviations, from the second day to the end of the fourth."""


def feature() -> FeatureReference:
    made = feature_reference("x", np.random.default_rng(2).normal(size=5000))
    assert made is not None
    return made


def hours(name: str, begin: float, *, ramp: float = 0.0, release: int = 7) -> list[Report]:
    """Give a device's windows of an hour: 200 values each, whose mean rises from the second day on."""
    chance, one = np.random.default_rng(list(name.encode())), feature()
    reference = with_digest(Reference(5000, (one,)))
    telemetry = Telemetry(random.Random(name), f"{name:0>32}", uptime_s=1e6)  # noqa: S311 - made-up data
    reports = []
    for hour in range(HOURS):
        mean = ramp * max(0, hour - 24) / (HOURS - 24)
        counts = {"x": one.count(chance.normal(mean, size=200).tolist())}
        window = ModelWindow("kws", release, calls=200, features=counts, reference=reference.digest)
        at = begin + HOUR_S * (hour + 1)
        told = telemetry.next(at, models=(window,), system={}, energy_joules=None)
        reports.append(replace(told, start_s=told.end_s - HOUR_S))
    return reports


@pytest.mark.parametrize("by", ["device", "target", "release", "fleet"])
async def test_both_stores_say_the_same_bit_by_bit(stores, by) -> None:
    begin = 1_790_000_000.0
    reference = with_digest(Reference(5000, (feature(),)))
    fleet = {"0a": RAMP, "0b": 0.0, "0c": -RAMP, "0d": RAMP}
    # not in the order of time, as devices send
    for name, ramp in reversed(fleet.items()):
        told = hours(name, begin, ramp=ramp, release=7 + (name == "0d"))
        for start in range(0, HOURS, 40):
            pieces = [
                Incoming(name, f"{name:0>32}", one, one.at, one.at, f"kind-{name > '0b'}")
                for one in told[start : start + 40]
            ]
            for store in stores:
                await store.append(pieces)
    found = []
    for store in stores:
        watch = SlowDriftWatch({reference.digest: reference}, by)
        async for piece in store.windows(Selection(0, 4e9)):
            watch.add(piece)
        (sums,) = watch._sums.values()
        found.append((watch.found(), sums.values.tobytes(), sums.since.tobytes(), sums.places))
    assert found[0] == found[1]
    assert found[0][0]


async def ask(client, **query: object) -> dict:
    answer = await client.get("/v1/telemetry/drift", params={"since": 0, "slow": True, **query})
    assert answer.status_code == 200, answer.text
    found: dict = answer.json()
    return found


async def tell(client, name: str, begin: float, *, ramp: float = 0.0) -> None:
    device = await enrol(client, name)
    told = hours(name, begin, ramp=ramp)
    telemetry = Telemetry(epoch=f"{name:0>32}", boot_id=told[0].boot_id, uptime_s=told[-1].end_s)
    for start in range(0, HOURS, 48):
        batch = telemetry.batch(told[start : start + 48], time.time())
        answer = await post(client, device.token, batch)
        assert answer.status_code == 200, answer.text


async def test_a_slow_ramp_is_told_with_its_beginning_and_a_calm_fleet_is_not(client) -> None:
    reference = with_digest(Reference(5000, (feature(),)))
    await sr.publish(client, await sr.init(client), "kws", 7, reference_to_json(reference))
    begin = time.time() // HOUR_S * HOUR_S - HOURS * HOUR_S
    for name in ("0a", "0b", "0c"):
        await tell(client, name, begin)
    calm = await ask(client, by="device")
    assert (calm["answers"], calm["found"], calm["groups"]) == ([], 0, 3)
    assert calm["false_alarms_at_most"] == pytest.approx(3 * HOURS * 4 / 1e8)
    assert (calm["windows_without_reference"], calm["windows_left_aside"]) == (0, 0)
    await tell(client, "0d", begin, ramp=RAMP)
    (found,) = (await ask(client, by="device"))["answers"]
    assert found["group"] == {"model": "kws", "reference": reference.digest, "name": "0d", "release": 7}
    assert (found["feature"], found["direction"], found["lasts"]) == ("x", "up", True)
    assert begin + 12 * HOUR_S < found["since"] < begin + 60 * HOUR_S
    assert found["since"] < found["at"] < begin + HOURS * HOUR_S
    assert [one["direction"] for one in (await ask(client, by="release"))["answers"]] == ["up"]
    assert (await ask(client, by="device", device="0a,0b"))["answers"] == []


async def test_slow_drift_takes_no_level(client) -> None:
    answer = await client.get("/v1/telemetry/drift", params={"slow": True, "level": 0.01})
    assert answer.status_code == 400
    assert "no level" in answer.json()["error"]["message"]
