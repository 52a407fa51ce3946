"""``POST /v1/reports``: stored once and for ever, or refused as a whole."""

from __future__ import annotations

import copy
import random
import time
import zlib
from dataclasses import replace

import pytest
from edgeml_devices.server.telemetry import writer
from edgeml_devices.server.telemetry.store import Selection

from edgeml.telemetry.exponential import ExponentialHistogram
from edgeml.telemetry.report import CONTENT_JSON, CONTENT_MSGPACK, Lost, ModelWindow, Sample
from tests.integration.server.devices import enrol, refusals
from tests.integration.telemetry.windows import Telemetry, post

pytestmark = pytest.mark.anyio
ALL = Selection(0, 4e9)


@pytest.fixture
def telemetry() -> Telemetry:
    return Telemetry(random.Random(5))  # noqa: S311 - made-up data


async def rows(services) -> list:
    return [row async for piece in services.telemetry.windows(ALL) for row in piece]


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize("encoding", ["", "deflate", "gzip"])
async def test_a_batch_is_stored_and_acknowledged(client, services, telemetry, as_json, encoding) -> None:
    device = await enrol(client)
    now = time.time()
    reports = [telemetry.next(now - 60 * ago) for ago in (2, 1, 0)]
    answer = await post(
        client, device.token, telemetry.batch(reports, now), as_json=as_json, encoding=encoding
    )
    assert answer.status_code == 200, answer.text
    assert answer.json()["acked_through"] == 2
    found = await rows(services)
    assert [row.device_id for row in found] == [device.id] * 3
    assert [row.at for row in found] == pytest.approx([report.at for report in reports])
    sent = reports[0].models[0]
    got = replace(found[0].window, rff_sum=sent.rff_sum, samples=sent.samples)
    assert got == sent
    assert found[0].window.rff_sum == pytest.approx(sent.rff_sum, rel=1e-3)
    assert [one.label for one in found[0].window.samples] == [one.label for one in sent.samples]


async def test_a_batch_that_comes_again_is_acknowledged_and_not_stored_again(
    client, services, telemetry
) -> None:
    device = await enrol(client)
    batch = telemetry.batch([telemetry.next(time.time()) for _ in range(3)], time.time())
    first, again = [await post(client, device.token, batch) for _ in range(2)]
    assert first.json()["acked_through"] == again.json()["acked_through"] == 2
    assert len(await rows(services)) == 3


async def test_a_cloned_card_is_told_to_begin_a_new_epoch_and_what_it_may_forget(client, services) -> None:
    device = await enrol(client)
    now = time.time()
    original = Telemetry(random.Random(1))  # noqa: S311 - made-up data
    shared = [original.next(now) for _ in range(2)]
    clone = copy.deepcopy(original)
    clone.chance.seed(2)
    batch = original.batch([*shared, original.next(now)], now)
    assert (await post(client, device.token, batch)).status_code == 200
    # its windows do not end in the same microsecond
    answer = await post(client, device.token, clone.batch([*shared, clone.next(now - 0.01)], now))
    assert answer.status_code == 409
    assert "begin a new epoch" in answer.json()["error"]["message"]
    assert answer.json()["acked_through"] == 1
    assert len(await rows(services)) == 3
    assert (await refusals(client))[-1]["actor"] == f"device:{device.id}"
    clone = Telemetry(random.Random(3))  # noqa: S311 - as above
    assert (await post(client, device.token, clone.batch([clone.next(now)], now))).status_code == 200
    assert len(await rows(services)) == 4


async def test_numbers_that_were_passed_over_are_told_as_gaps(client, telemetry) -> None:
    device = await enrol(client)
    telemetry.seq = 6
    answer = await post(client, device.token, telemetry.batch([telemetry.next(time.time())], time.time()))
    assert answer.json()["acked_through"] == 7
    assert answer.json()["gaps"] == [[0, 6]]


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("seq", -1, "seq"),
        ("link", "no", "link"),
        ("windows", 5, "windows"),
        ("first", 9, "first"),
        ("end_s", 1e9, "a window of"),
        ("at", float("nan"), "at"),
        ("boot_id", "a\0b", "NUL"),
        ("boot_id", "b" * 200, "boot_id"),
    ],
)
async def test_a_report_that_cannot_be_is_named(client, services, telemetry, field, value, said) -> None:
    device = await enrol(client)
    now = time.time()
    good, bad = telemetry.next(now), replace(telemetry.next(now), **{field: value})
    answer = await post(client, device.token, telemetry.batch([good, bad], now))
    assert answer.status_code == 400, answer.text
    message = answer.json()["error"]["message"]
    assert f"report {bad.seq}: " in message
    assert said in message
    assert await rows(services) == []


@pytest.mark.parametrize(
    "change",
    [
        {"calls": 2**53},
        {"errors": {"E": -1}},
        {"classes": {str(n): 1 for n in range(40)}},
        {"features": {"f": (1,) * 2000}},
        {"latency": {"total": ExponentialHistogram(0, (1,), 0, 5, 2.0, 1.0)}},
        {"latency": {"total": ExponentialHistogram(0, (-1,), 0, 5, 1.0, 1.0)}},
        {"rff_sum": (float("inf"),)},
        {"model": "m" * 129},
        {"samples": (Sample(0.0, "random"),) * 21},
    ],
)
async def test_a_model_that_cannot_be_is_refused(client, services, telemetry, change) -> None:
    device = await enrol(client)
    window = replace(ModelWindow("kws", 1), **change)
    batch = telemetry.batch([telemetry.next(time.time(), models=(window,))], time.time())
    answer = await post(client, device.token, batch)
    assert answer.status_code == 400, answer.text
    assert "report 0: " in answer.json()["error"]["message"]
    assert await rows(services) == []


async def test_a_body_that_inflates_beyond_its_bound_is_refused(client) -> None:
    device = await enrol(client)
    bomb = zlib.compress(b"\0" * 50_000_000)
    headers = device.headers | {"Content-Type": CONTENT_MSGPACK, "Content-Encoding": "deflate"}
    answer = await client.post("/v1/reports", content=bomb, headers=headers)
    assert answer.status_code == 413
    answer = await client.post("/v1/reports", content=b"\0" * 400_000, headers=headers)
    assert answer.status_code == 413


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ({"Content-Type": "text/plain"}, b"", 415),
        ({"Content-Type": CONTENT_MSGPACK, "Content-Encoding": "br"}, b"", 415),
        ({"Content-Type": CONTENT_MSGPACK, "Content-Encoding": "gzip"}, b"no", 400),
        ({"Content-Type": CONTENT_MSGPACK, "Content-Encoding": "deflate"}, zlib.compress(b"a" * 99)[:9], 400),
        ({"Content-Type": CONTENT_MSGPACK}, b"\x81", 400),
        ({"Content-Type": CONTENT_MSGPACK}, b"\x91" * 100_000, 400),
        ({"Content-Type": CONTENT_JSON}, b"[" * 100_000, 400),
        ({"Content-Type": CONTENT_JSON}, b'{"epoch": "\xff"}', 400),
        ({"Content-Type": CONTENT_JSON}, b"{}", 400),
    ],
)
async def test_what_is_no_batch_is_refused(client, headers, body, status) -> None:
    device = await enrol(client)
    answer = await client.post("/v1/reports", content=body, headers=device.headers | headers)
    assert answer.status_code == status
    assert answer.json()["error"]["message"]


async def test_only_a_device_reports(client, telemetry, admin_token) -> None:
    batch = telemetry.batch([telemetry.next(time.time())], time.time())
    assert (await post(client, admin_token, batch)).status_code == 403
    assert (await post(client, "nobody's", batch)).status_code == 401


async def test_more_than_can_be_stored_is_put_off(client, services, telemetry, monkeypatch) -> None:
    device = await enrol(client)
    monkeypatch.setattr(writer, "MOST_WAITING", 0)
    answer = await post(client, device.token, telemetry.batch([telemetry.next(time.time())], time.time()))
    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) > 0


async def test_a_retired_device_reports_no_more_and_what_it_reported_stays(
    client, services, telemetry
) -> None:
    device = await enrol(client)
    now = time.time()
    assert (await post(client, device.token, telemetry.batch([telemetry.next(now)], now))).status_code == 200
    assert (await client.post(f"/v1/devices/{device.id}/retire")).status_code == 200
    assert (await post(client, device.token, telemetry.batch([telemetry.next(now)], now))).status_code == 401
    assert len(await rows(services)) == 1


async def test_windows_of_a_clock_that_was_not_set_are_dated(client, services, telemetry) -> None:
    device = await enrol(client)
    now = time.time()
    reports = [telemetry.next(3.0 + n, clock="unsynced") for n in range(3)]
    assert (await post(client, device.token, telemetry.batch(reports, 10.0))).status_code == 200
    found = [row.at for row in await rows(services)]
    assert found == pytest.approx([now - 121, now - 61, now - 1], abs=30)


async def test_the_kind_of_machine_is_stored_with_its_reports(client, services, telemetry) -> None:
    facts = {"target": {"name": "raspberry-pi-4"}, "engines": {}, "edgeml": "1", "python": "3"}
    device = await enrol(client, facts=facts)
    now = time.time()
    await post(client, device.token, telemetry.batch([telemetry.next(now)], now))
    assert [row.target for row in await rows(services)] == ["raspberry-pi-4"]


@pytest.mark.parametrize(
    "fields", [{"lost": Lost(evicted=2**40)}, {"seq": 2**40}, {"first": 0, "windows": 2**40}]
)
async def test_numbers_that_would_break_the_sums_of_the_whole_fleet_are_refused(
    client, telemetry, fields
) -> None:
    device = await enrol(client)
    report = replace(telemetry.next(time.time()), **fields)
    answer = await post(client, device.token, telemetry.batch([report], time.time()))
    assert answer.status_code == 400
    assert (await client.get("/v1/telemetry/coverage")).status_code == 200


async def test_who_may_ask_and_who_may_report(client) -> None:
    device = await enrol(client)
    viewer = (await client.post("/v1/tokens", json={"name": "eve", "role": "viewer"})).json()["token"]
    questions = ("quantile", "rate", "machine", "coverage", "samples", "drift", "export")
    for path in (*(f"/v1/telemetry/{name}" for name in questions), "/v1/alerts", "/metrics"):
        statuses = [
            (await client.get(path, headers={"Authorization": f"Bearer {token}"})).status_code
            for token in ("nobody", device.token, viewer)
        ]
        assert statuses == [401, 403, 200], path
    for path in ("/v1/reports", "/v1/metrics"):
        statuses = [
            (await client.post(path, headers={"Authorization": f"Bearer {token}"})).status_code
            for token in ("nobody", viewer)
        ]
        assert statuses == [401, 403], path
