"""Questions over HTTP, to telemetry that devices sent: who may ask, of which devices, and what comes back."""

from __future__ import annotations

import math
import random
import time
from dataclasses import replace

import httpx2
import numpy as np
import pytest

from edgeml.reference_data import feature_reference
from edgeml.telemetry.exponential import histogram_of
from edgeml.telemetry.reference import Reference, reference_to_json, with_digest
from edgeml.telemetry.report import ModelWindow
from tests.integration.server import signed_repository as sr
from tests.integration.server.devices import Device, enrol
from tests.integration.telemetry.windows import Telemetry, post

pytestmark = pytest.mark.anyio


async def tell(client: httpx2.AsyncClient, device: Device, *windows: ModelWindow, at: float) -> None:
    telemetry = Telemetry(random.Random(device.id))  # noqa: S311 - made-up data
    reports = [telemetry.next(at + place, models=(one,)) for place, one in enumerate(windows)]
    answer = await post(client, device.token, telemetry.batch(reports, time.time()))
    assert answer.status_code == 200, answer.text


def window(latency_s: float, release: int = 7, *, calls: int = 100, errors: int = 0) -> ModelWindow:
    latency = histogram_of([latency_s] * (calls - errors))
    failed = {"InferenceError": errors} if errors else {}
    return ModelWindow("kws", release, "int8", "litert", calls, failed, {"total": latency})


@pytest.fixture
async def fleet(client: httpx2.AsyncClient) -> list[Device]:
    """Six devices that ran release 7 and then 8, of which the second is 1.5 times as slow and fails more."""
    at = time.time() // 3600 * 3600 - 1800
    devices = []
    for number in range(6):
        device = await enrol(client, f"pi-{number}")
        await client.patch(f"/v1/devices/{device.id}", json={"labels": {"site": "ab"[number % 2]}})
        slow = 0.01 * (number + 1)
        await tell(client, device, window(slow), window(1.5 * slow, 8, errors=10), at=at)
        devices.append(device)
    return devices


async def ask(client: httpx2.AsyncClient, question: str, *, status: int = 200, **query: object) -> dict:
    answer = await client.get(f"/v1/telemetry/{question}", params={"since": 0, **query})
    assert answer.status_code == status, answer.text
    found: dict = answer.json()
    return found


@pytest.mark.usefixtures("fleet")
async def test_quantiles_by_release_over_the_fleet(client) -> None:
    found = (await ask(client, "quantile", by="release", q="0.5"))["answers"]
    assert [(one["key"]["release"], one["count"]) for one in found] == [(7, 600), (8, 540)]
    assert found[0]["quantiles"]["0.5"]["value"] == pytest.approx(0.03, rel=0.05)


@pytest.mark.usefixtures("fleet")
@pytest.mark.parametrize(
    ("query", "names"),
    [
        ({"device": "pi-1,pi-2"}, ["pi-1", "pi-2"]),
        ({"selector": "site=b"}, ["pi-1", "pi-3", "pi-5"]),
        ({"group": "bs"}, ["pi-1", "pi-3", "pi-5"]),
        ({"group": "bs", "device": "pi-1,pi-2"}, ["pi-1"]),
    ],
)
async def test_devices_are_chosen_and_named_as_people_do(client, query, names) -> None:
    await client.put("/v1/groups/bs", json={"selector": "site=b"})
    found = (await ask(client, "rate", by="device", **query))["answers"]
    assert sorted(one["key"]["device"] for one in found) == names


@pytest.mark.usefixtures("fleet")
async def test_rates_have_intervals(client) -> None:
    (found,) = (await ask(client, "rate", release=8))["answers"]
    assert (found["calls"], found["errors"]) == (600, 60)
    assert found["rate"]["low"] < 0.1 < found["rate"]["high"]


@pytest.mark.usefixtures("fleet")
async def test_one_release_is_compared_with_another(client) -> None:
    found = await ask(client, "compare", model="kws", release=8, against=7, q="0.5")
    assert (found["devices"], found["cells"]) == (6, 6)
    ratio = found["ratios"]["0.5"]
    assert ratio["low"] <= ratio["value"] <= ratio["high"]
    assert ratio["low"] > 1.3
    assert ratio["high"] < 1.75
    assert found["error_difference"]["value"] == pytest.approx(0.1)


async def test_a_device_before_it_sent_anything_is_no_error(client) -> None:
    await enrol(client, "new")
    assert (await ask(client, "quantile", device="new"))["answers"] == []
    assert (await ask(client, "coverage", device="new"))["answers"] == []
    assert (await ask(client, "compare", model="kws", release=8, against=7))["cells"] == 0


@pytest.mark.usefixtures("fleet")
async def test_machines_and_their_energy(client) -> None:
    (found, *_) = (await ask(client, "machine", by="device"))["answers"]
    assert found["quantities"]["temperature_celsius"]["max"] == pytest.approx(63.8)
    assert found["energy_per_call_joules"] == pytest.approx(2 * 81.25 / 200)


async def test_samples_come_with_the_names_of_devices(client) -> None:
    device = await enrol(client, "pi")
    telemetry = Telemetry(random.Random(3))  # noqa: S311 - made-up data
    await post(client, device.token, telemetry.batch([telemetry.next(time.time())], time.time()))
    found = (await ask(client, "samples", limit=3))["answers"]
    assert [one["device"] for one in found] == ["pi"] * 3
    assert all(one["sample"]["why"] == "random" for one in found)
    times = [one["sample"]["at"] for one in found]
    assert times == sorted(times, reverse=True)


async def test_devices_stand_in_the_order_of_their_names(client) -> None:
    for name in ("pi-c", "pi-a", "pi-b"):
        await tell(client, await enrol(client, name), window(0.01), at=time.time() - 60)
    for question in ("quantile", "rate"):
        answers = (await ask(client, question, by="device"))["answers"]
        assert [one["key"]["device"] for one in answers] == ["pi-a", "pi-b", "pi-c"]
    assert [one["device"] for one in (await ask(client, "coverage"))["answers"]] == ["pi-a", "pi-b", "pi-c"]


async def test_of_a_day_that_goes_on_only_what_has_passed_can_be_covered(client) -> None:
    device = await enrol(client, "pi")
    telemetry, now = Telemetry(random.Random(4)), time.time()  # noqa: S311 - made-up data
    await post(client, device.token, telemetry.batch([telemetry.next(now)], now))
    (found,) = (await ask(client, "coverage"))["answers"]
    assert found["asked_s"] == pytest.approx(now % 86400, abs=30)
    assert found["covered"] == pytest.approx(min(1.0, 60 / found["asked_s"]))


async def test_of_the_first_day_only_what_was_asked_about_counts(client) -> None:
    device = await enrol(client, "pi")
    telemetry = Telemetry(random.Random(4))  # noqa: S311 - made-up data
    noon = (time.time() // 86400 - 2) * 86400 + 43200
    reports = [telemetry.next(noon + 60 * (minute + 1)) for minute in range(60)]
    await post(client, device.token, telemetry.batch(reports, time.time()))
    for since, until, received, asked_s, seconds in (
        (noon, noon + 3600, 60, 3600, 3600),
        # windows end in it, one begins before it
        (noon + 1770, noon + 7200, 31, 5430, 1830),
        (noon - 86400, noon + 43200, 60, 86400, 3600),
        (noon + 3000, time.time() + 86400, 10, 40200, 600),
    ):
        (found,) = (await ask(client, "coverage", since=since, until=until))["answers"]
        assert (found["received"], found["asked_s"], found["seconds"]) == (received, asked_s, seconds)
        assert found["covered"] == pytest.approx(seconds / asked_s)


async def test_coverage_names_what_never_came(client) -> None:
    device = await enrol(client, "pi")
    telemetry, now = Telemetry(random.Random(4)), time.time()  # noqa: S311 - made-up data
    first = telemetry.next(now - 300)
    telemetry.seq += 3
    await post(client, device.token, telemetry.batch([first, telemetry.next(now)], now))
    found = (await ask(client, "coverage"))["answers"]
    assert sum(one["received"] for one in found) == 2
    assert sum(one["missing"] for one in found) == 3


@pytest.mark.parametrize(
    ("question", "query", "says"),
    [
        ("quantile", {"q": "95"}, "from 0 to 1"),
        ("quantile", {"q": "x"}, "a share is a number"),
        ("quantile", {"by": "site"}, "cannot group by 'site'"),
        ("machine", {"by": "release"}, "a machine has no release"),
        ("rate", {"since": 10, "until": 5}, "ends at 1970-01-01 00:00:05 UTC, before it begins"),
        ("rate", {"since": "nan"}, "since"),
        ("rate", {"selector": "=="}, "cannot read"),
        ("compare", {"release": 8, "against": 7}, "needs model and release"),
        ("compare", {"model": "kws", "release": 7, "against": 7}, "against itself"),
        ("coverage", {"model": "kws"}, "of no one model; ask without model=kws"),
        ("coverage", {"target": "pi"}, "of no one target"),
        ("machine", {"variant": "int8"}, "of no one variant"),
    ],
)
async def test_a_question_that_cannot_be_answered_says_why(client, question, query, says) -> None:
    assert says in (await ask(client, question, status=400, **query))["error"]["message"]


async def test_unknown_devices_and_groups_are_named(client) -> None:
    for query in ({"device": "nobody"}, {"group": "nobody"}):
        assert "nobody" in (await ask(client, "rate", status=404, **query))["error"]["message"]


async def test_only_people_may_ask(client) -> None:
    device = await enrol(client)
    answer = await client.get("/v1/telemetry/rate", headers=device.headers)
    assert answer.status_code == 403


async def test_an_answer_is_json_though_a_device_counted_no_latency(client) -> None:
    device = await enrol(client, "pi")
    failed = replace(window(0.1, errors=100), latency={})
    await tell(client, device, failed, at=time.time() - 60)
    (found,) = (await ask(client, "rate"))["answers"]
    assert math.isclose(found["rate"]["value"], 1.0)
    assert (await ask(client, "quantile"))["answers"] == []


@pytest.mark.usefixtures("fleet")
async def test_windows_are_exported_as_parquet(client, tmp_path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    answer = await client.get("/v1/telemetry/export", params={"since": 0, "release": 8})
    assert answer.status_code == 200, answer.text
    (tmp_path / "windows.parquet").write_bytes(answer.content)
    table = parquet.read_table(tmp_path / "windows.parquet")
    assert table.num_rows == 6
    assert set(table.column("release").to_pylist()) == {8}


async def test_drift_is_told_against_the_reference_in_the_bundle(client) -> None:
    values = np.random.default_rng(2).normal(size=5000)
    feature = feature_reference("x", values)
    assert feature is not None
    reference = with_digest(Reference(5000, (feature,)))
    repository = await sr.init(client)
    await sr.publish(client, repository, "kws", 7, reference_to_json(reference))
    for name, shift in (("same", 0.0), ("shifted", 0.5)):
        device = await enrol(client, name)
        seen = np.random.default_rng(len(name)).normal(shift, size=1800)
        counts = {"x": feature.count(seen.tolist())}
        told = ModelWindow("kws", 7, calls=1800, features=counts, reference=reference.digest)
        await tell(client, device, told, at=time.time() - 60)
    found = await ask(client, "drift", by="device")
    assert found["windows_without_reference"] == 0
    drifted = {one["group"]["name"]: one["drifted"] for one in found["answers"]}
    assert drifted == {"same": False, "shifted": True}
    (first, _) = found["answers"]
    assert len(first["counts"]) == len(first["expected"]) == len(first["edges"]) + 1
    assert first["shift"] == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize(
    ("told", "names", "counts", "expected"),
    [
        ({"cat": 40, "eel": 9, "newt": 1}, ["cat", "dog", "eel", "other"], [40, 0, 9, 1], [60, 30, 10, 0]),
        ({"cat": 40, "other": 10}, ["cat", "other"], [40, 10], [60, 40]),
    ],
)
async def test_classes_stand_beside_those_of_the_reference(client, told, names, counts, expected) -> None:
    reference = with_digest(Reference(100, classes={"cat": 60, "dog": 30, "eel": 10}))
    await sr.publish(client, await sr.init(client), "kws", 7, reference_to_json(reference))
    device = await enrol(client, "pi")
    window = ModelWindow("kws", 7, calls=50, classes=told, reference=reference.digest)
    await tell(client, device, window, at=time.time() - 60)
    (found,) = (await ask(client, "drift"))["answers"]
    assert (found["feature"], found["classes"], found["edges"]) == ("classes", names, [])
    assert (found["counts"], found["expected"]) == (counts, expected)


async def test_windows_of_a_bundle_that_is_not_here_are_counted(client) -> None:
    device = await enrol(client, "pi")
    told = ModelWindow("kws", 7, calls=9, features={"x": (4, 5)}, reference="ab" * 32)
    await tell(client, device, told, at=time.time() - 60)
    found = await ask(client, "drift")
    assert (found["answers"], found["windows_without_reference"]) == ([], 1)
