"""Reports: stored once, in any order, answered after the commit."""

from __future__ import annotations

import asyncio
import json
import time

import pytest
from edgeml_devices.server import tables
from edgeml_devices.server.pruning import prune
from sqlalchemy import func, select, update

from tests.integration.server.devices import enrol, refusals

pytestmark = pytest.mark.anyio


def _event(seq: int, state: str = "FETCHING", **fields):
    return {"seq": seq, "at": 1e9, "model": "kws", "release": 2, "attempt": 1, "state": state} | fields


def _health(seq: int, **fields):
    window = {"seq": seq, "at": 1e9, "duration_s": 10.0, "model": "kws", "release": 1, "variant": "v"}
    return window | {"processes": 1, "calls": 5, "errors": 0, "latency_counts": {"3": 5}} | fields


async def _count(services, table) -> int:
    async with services.database.reading() as connection:
        return (await connection.execute(select(func.count()).select_from(table))).scalar_one()


async def test_a_report_is_shown_as_the_device_told_it(client) -> None:
    device = await enrol(client)
    status = {
        "state": "PROBATION",
        "running": 2,
        "variant": "litert-int8",
        "manifest_sha256": "a" * 64,
        "target": 2,
        "attempt": 3,
        "rollout": "r1",
        "selftest": {"litert-int8": {"passed": True, "p50_ms": 1.5}},
    }
    facts = {"target": {"name": "pi4"}, "disk_free_bytes": 5}
    report = device.report(
        models={"kws": status}, events=[_event(0)], health=[_health(0)], generation=7, facts=facts
    )
    answer = await device.send(report)
    assert (answer.status_code, answer.json()) == (200, {"events": 0, "health": 0})
    shown = (await client.get(f"/v1/devices/{device.id}")).json()
    told = shown["models"]["kws"]["status"]
    assert told | status == told
    assert shown["reported_generation"] == 7
    assert shown["facts"] == {"target": {"name": "pi4"}, "disk_free_bytes": 5}
    assert abs(shown["clock_offset_s"] - (1e9 - time.time())) < 5
    events = (await client.get(f"/v1/devices/{device.id}/events")).json()["events"]
    assert [(event["seq"], event["state"]) for event in events] == [(0, "FETCHING")]


async def test_the_same_report_again_changes_nothing(client, services) -> None:
    device = await enrol(client)
    report = device.report(
        models={"kws": {"state": "IDLE", "running": 1}}, events=[_event(4), _event(5)], health=[_health(2)]
    )
    answers = [await device.send(report) for _ in range(3)]
    assert [answer.json() for answer in answers] == [{"events": 5, "health": 2}] * 3
    assert await _count(services, tables.events) == 2
    assert await _count(services, tables.health) == 1


async def test_a_report_that_comes_late_adds_its_events_and_leaves_the_newer_state(client, services) -> None:
    device = await enrol(client)
    late = device.report(models={"kws": {"state": "FETCHING"}}, events=[_event(0)], generation=1)
    newer = device.report(
        models={"kws": {"state": "COMMITTED", "running": 2}}, events=[_event(1)], generation=2
    )
    assert (await device.send(newer)).json()["events"] == 1
    assert (await device.send(late)).status_code == 200
    shown = (await client.get(f"/v1/devices/{device.id}")).json()
    assert shown["models"]["kws"]["status"]["state"] == "COMMITTED"
    assert shown["reported_generation"] == 2
    assert await _count(services, tables.events) == 2


async def test_a_report_of_an_epoch_that_was_replaced_leaves_the_newer_state(client) -> None:
    device = await enrol(client)
    old = device.report(models={"kws": {"state": "FETCHING"}}, events=[_event(0)])
    await device.send(old)
    device.epoch, device.seq = "new", 0
    await device.send(device.report(models={"kws": {"state": "COMMITTED"}}, events=[_event(0)]))
    await device.send(old | {"seq": 99})
    shown = (await client.get(f"/v1/devices/{device.id}")).json()
    assert shown["models"]["kws"]["status"]["state"] == "COMMITTED"


async def test_that_holds_for_an_epoch_that_told_no_event_and_for_the_one_before_it(client) -> None:
    device = await enrol(client)
    replaced = []
    for epoch in ("first", "second"):
        device.epoch, device.seq = epoch, 0
        replaced.append(device.report(models={"kws": {"state": "FETCHING"}}))
        await device.send(replaced[-1])
    device.epoch, device.seq = "third", 0
    await device.send(device.report(models={"kws": {"state": "COMMITTED"}}))
    for report in replaced:
        assert (await device.send(report | {"seq": 99})).status_code == 200
    shown = (await client.get(f"/v1/devices/{device.id}")).json()
    assert shown["models"]["kws"]["status"]["state"] == "COMMITTED"


async def test_a_model_that_is_not_told_any_more_is_gone(client) -> None:
    device = await enrol(client)
    await device.send(device.report(models={"a": {"state": "IDLE"}, "b": {"state": "IDLE"}}))
    await device.send(device.report(models={"b": {"state": "IDLE"}}))
    assert list((await client.get(f"/v1/devices/{device.id}")).json()["models"]) == ["b"]


async def test_a_later_version_may_say_more(client) -> None:
    device = await enrol(client)
    status = {
        "state": "FAILED",
        "result": "FAILED_NO_STATE_CHANGE",
        "reason": "a_reason_of_a_later_version_that_is_long",
    }
    report = device.report(
        models={"unknown": status | {"new": 1}}, events=[_event(0, rollout="unknown")], more=[1]
    )
    assert (await device.send(report)).status_code == 200


async def test_health_is_dated_by_the_servers_clock(client, services) -> None:
    device = await enrol(client)
    windows = [_health(0, at=1e9 - 100), _health(1, at=1e9 + 1000), _health(2, at=-6e10)]
    await device.send(device.report(health=windows))
    async with services.database.reading() as connection:
        rows = (await connection.execute(select(tables.health).order_by(tables.health.c.seq))).all()
    ago = [time.time() - row.at for row in rows]
    assert 99 < ago[0] < 105
    assert 0 <= ago[1] < 5
    assert ago[2] < 31 * 86400


async def test_many_reports_at_once_are_all_stored_and_answered(client, services) -> None:
    devices = [await enrol(client) for _ in range(5)]
    reports = [(device, device.report(events=[_event(number)])) for device in devices for number in range(20)]
    answers = await asyncio.gather(*(device.send(report) for device, report in reports))
    assert {answer.status_code for answer in answers} == {200}
    assert await _count(services, tables.events) == 100


async def test_text_of_a_broken_log_does_not_hold_a_report_up(client) -> None:
    device = await enrol(client)
    body = device.report(events=[_event(0, detail="a\x00b\udc80c" + "x" * 5000)])
    content = json.dumps(body)  # writes what is no Unicode as an escape
    answer = await client.post("/v1/agent/reports", content=content, headers=device.headers)
    assert answer.status_code == 200
    detail = (await client.get(f"/v1/devices/{device.id}/events")).json()["events"][0]["detail"]
    assert detail.startswith("a\ufffdb?c")
    assert len(detail) == 4000


async def test_what_a_device_refused_is_in_the_audit_log_once(client) -> None:
    device = await enrol(client)
    failed = _event(0, "FAILED", result="FAILED_NO_STATE_CHANGE", reason="signature", detail="3 of 2")
    report = device.report(events=[failed])
    await device.send(report)
    await device.send(report)
    rows = await refusals(client)
    assert [(row["actor"], row["object"], row["detail"]["reason"]) for row in rows] == [
        (f"device:{device.id}", "kws/2", "signature")
    ]


async def test_a_token_used_for_another_device_is_refused(client) -> None:
    thief, victim = await enrol(client), await enrol(client)
    answer = await thief.send(thief.report(device_id=victim.id))
    assert answer.status_code == 403
    assert (await refusals(client))[0]["actor"] == f"device:{thief.id}"


async def test_a_field_that_cannot_be_is_named(client) -> None:
    device = await enrol(client)
    for fields, place in (
        ({"seq": "x"}, "seq"),
        ({"seq": -1}, "seq"),
        ({"seq": 2**63}, "seq"),
        ({"at": "nan"}, "at"),
        ({"epoch": "e" * 33}, "epoch"),
        ({"models": {"kws": {"state": "FLYING"}}}, "models.kws.state"),
        ({"models": {"kws": {"state": "IDLE", "running": 2**64}}}, "models.kws.running"),
        ({"models": {"m" * 129: {"state": "IDLE"}}}, "models"),
        ({"events": [{"seq": 0}]}, "events[0]"),
        ({"events": [_event(0, attempt=2**31)]}, "events[0].attempt"),
        ({"health": [_health(0, duration_s="inf")]}, "health[0].duration_s"),
    ):
        answer = await device.send(device.report(**fields))
        assert answer.status_code == 400, fields
        assert place in answer.json()["error"]["message"]


async def test_garbage_is_no_report(client) -> None:
    device = await enrol(client)
    for body in (b"", b"{", b"[]", b"\xff", b'{"a":1,"a":2}', b"[" * 100_000, b"NaN"):
        answer = await client.post("/v1/agent/reports", content=body, headers=device.headers)
        assert answer.status_code == 400, body[:20]
        assert answer.json()["error"]["type"] == "bad_request"


async def test_a_report_that_is_too_long_is_refused(client, services) -> None:
    device = await enrol(client)
    body = b'"' + b"x" * services.settings.limits.document_bytes + b'"'
    answer = await client.post("/v1/agent/reports", content=body, headers=device.headers)
    assert (answer.status_code, answer.json()["error"]["type"]) == (413, "too_large")


async def test_old_events_and_health_leave_and_newer_ones_stay(client, services) -> None:
    device = await enrol(client)
    await device.send(device.report(events=[_event(0), _event(1)], health=[_health(0), _health(1)]))
    settings = services.settings
    async with services.database.writing() as tx:
        for table, days in (
            (tables.events, settings.keep_events_days),
            (tables.health, settings.keep_health_days),
        ):
            old = time.time() - (days + 1) * 86400
            await tx.connection.execute(update(table).where(table.c.seq == 0).values(received_at=old))
    await prune(services)
    async with services.database.reading() as connection:
        for table in (tables.events, tables.health):
            assert list((await connection.execute(select(table.c.seq))).scalars()) == [1]
