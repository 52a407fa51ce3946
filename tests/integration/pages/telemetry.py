"""Telemetry as a fleet of some hours leaves it: two releases, the later one slower, and its inputs moved."""

from __future__ import annotations

import hashlib
import random
import secrets
import time
from dataclasses import dataclass, replace

import numpy as np
from edgeml_devices.server.alerts.tables import alert_rules, alerts
from edgeml_devices.server.services import Services
from edgeml_devices.server.telemetry.store import Incoming

from edgeml import manifest_json
from edgeml.manifest import FileEntry, Manifest, Variant
from edgeml.reference_data import feature_reference
from edgeml.telemetry.exponential import histogram_of
from edgeml.telemetry.reference import Reference, reference_to_json, with_digest
from edgeml.telemetry.report import ModelWindow, Sample, Summary
from tests.integration.pages.fleet import Fleet
from tests.integration.telemetry.windows import Telemetry

FEATURE = "brightness.mean"


@dataclass(frozen=True)
class Told:
    """A fleet that reported."""

    fleet: Fleet
    services: Services
    ids: list[str]


def reference(model: str = "kws", feature: str = FEATURE) -> Reference:
    chance = np.random.default_rng(len(model))
    made = feature_reference(feature, chance.normal(size=2000), nulls=False)
    assert made is not None
    return with_digest(Reference(2000, (made,), classes={"yes": 1000, "no": 1000}))


async def publish(
    fleet: Fleet, services: Services, release: int, made: Reference, model: str = "kws"
) -> None:
    """List a release, with its manifest among the blobs."""
    entry = FileEntry("model.tflite", 0, hashlib.sha256(b"").hexdigest())
    variant = Variant("int8", "litert", "int8", (entry,), ())
    manifest = Manifest(model, release, (), (), (variant,), ())
    text = manifest_json.dumps(replace(manifest, drift=reference_to_json(made)))
    sha256 = hashlib.sha256(text).hexdigest()
    path = services.blobs.path(sha256)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text)
    await fleet.release(model, release, manifest_sha256=sha256)


def window(made: Reference, release: int, at: float, *, latency_s: float, shift: float) -> ModelWindow:
    """A minute of 60 calls, 6 of which failed where the inputs moved."""
    chance = np.random.default_rng([int(at), round(1e6 * latency_s)])
    errors = 6 if shift else 0
    counts = made.features[0].count(chance.normal(shift, size=60).tolist())
    latencies = latency_s * chance.lognormal(0, 0.1, size=60 - errors)
    return ModelWindow(
        "kws",
        release,
        "int8",
        "litert",
        60,
        {"InferenceError": errors} if errors else {},
        {"total": histogram_of(latencies.tolist())},
        {"yes": 30 - errors // 2, "no": 30 - errors // 2},
        None,
        {made.features[0].name: counts},
        reference=made.digest,
        samples=(Sample(at - 1, "unsure", latency_s, "yes", 0.51),),
    )


async def report(
    services: Services, device: str, ends: list[tuple[float, ModelWindow]], *, missing: int = 0
) -> None:
    """Store windows as the collector does; some numbers are passed over after the first."""
    telemetry = Telemetry(random.Random(device), epoch=secrets.token_hex(16))  # noqa: S311 - made-up data
    incoming = []
    for place, (at, one) in enumerate(ends):
        system = {"temperature_celsius": Summary(50.0, 60.0, 70.5, 12), "throttled": Summary(0, 0.25, 1, 12)}
        told = telemetry.next(at, models=(one,), system=system, energy_joules=120.0)
        incoming.append(Incoming(device, telemetry.epoch, told, at, time.time(), "raspberry-pi-4"))
        telemetry.seq += missing if place == 0 else 0
    await services.telemetry.append(incoming)


async def tell(fleet: Fleet, services: Services, devices: int = 6) -> Told:
    """Have devices run release 7 and, in the same hour, release 8, which is slower and sees other inputs."""
    made = reference()
    for release in (7, 8):
        await publish(fleet, services, release, made)
    ids = await fleet.devices(f"pi-{number}" for number in range(devices))
    begin = time.time() // 3600 * 3600 - 3600
    for number, device in enumerate(ids):
        slow = 0.01 * (number + 1)
        ends = [
            (begin + 60 * minute, window(made, 7, begin + 60 * minute, latency_s=slow, shift=0))
            for minute in range(1, 8)
        ]
        ends += [
            (begin + 60 * minute, window(made, 8, begin + 60 * minute, latency_s=1.5 * slow, shift=1))
            for minute in range(8, 16)
        ]
        await report(services, device, ends, missing=3 if number == 0 else 0)
    await add_alert(fleet, "SlowDevice", "firing", [["device", "pi-5"]])
    await add_alert(fleet, "ManyErrors", "pending", [])
    return Told(fleet, services, ids)


async def add_alert(fleet: Fleet, name: str, state: str, key: list[list[str]]) -> None:
    row = {"name": name, "expression": "error_rate > 0.1", "evaluated_at": fleet.now, "claimed_until": 0.0}
    await fleet.add(alert_rules, row)
    alert = {"rule": name, "key_sha256": "0" * 64, "key": key, "state": state, "value": 0.25}
    await fleet.add(alerts, alert | {"since": fleet.now - 600, "held_at": fleet.now})
