"""What operators do: devices, groups, tokens, and what the audit log says of it."""

from __future__ import annotations

import asyncio

import httpx2
import pytest
from edgeml_devices import audit_chain
from edgeml_devices.server import auth

from tests.integration.server import signed_repository as sr
from tests.integration.server.devices import enrol, join_token, refusals

pytestmark = pytest.mark.anyio


async def _token(client, role: str, name: str | None = None) -> dict[str, str]:
    answer = await client.post("/v1/tokens", json={"name": name or role, "role": role})
    assert answer.status_code == 201, answer.text
    return {"Authorization": f"Bearer {answer.json()['token']}"}


# --- devices


async def test_devices_are_listed_by_name_in_pages_that_leave_none_out(client) -> None:
    for name in ("c", "a", "e", "b", "d"):
        await enrol(client, name)
    found, after = [], ""
    while after is not None:
        page = (await client.get("/v1/devices", params={"limit": 2, "after": after})).json()
        found += [device["name"] for device in page["devices"]]
        after = page["next"]
    assert found == ["a", "b", "c", "d", "e"]


async def test_devices_are_chosen_by_labels_name_and_target(client) -> None:
    facts = {"target": {"name": "pi4"}}
    await enrol(client, "a", labels={"site": "berlin", "ring": "1"}, facts=facts)
    await enrol(client, "b", labels={"site": "berlin"})
    await enrol(client, "c", labels={"site": "rome", "ring": "2"})
    for selector, names in (
        ("", "abc"),
        ("site=berlin", "ab"),
        ("site=berlin,!ring", "b"),
        ("ring in (1, 2)", "ac"),
        ("ring!=1", "bc"),
        ("ring notin (1)", "bc"),
        ("target=pi4", "a"),
        ("name=c", "c"),
        ("ring", "ac"),
    ):
        answer = await client.get("/v1/devices", params={"selector": selector})
        assert "".join(device["name"] for device in answer.json()["devices"]) == names, selector
    assert (await client.get("/v1/devices", params={"selector": "site berlin"})).status_code == 400


async def test_a_device_is_renamed_and_labelled(client) -> None:
    device = await enrol(client, "old", labels={"site": "berlin", "ring": "1"})
    await enrol(client, "taken")
    change = {"name": "new", "labels": {"ring": None, "line": "4"}}
    answer = await client.patch("/v1/devices/old", json=change)
    assert (answer.status_code, answer.json()["id"]) == (200, device.id)
    shown = (await client.get("/v1/devices/new")).json()
    assert shown["labels"] == {"site": "berlin", "line": "4"}
    assert (await client.patch("/v1/devices/new", json={"name": "taken"})).status_code == 409
    for wrong in (
        {"name": "a b"},
        {"labels": {"a b": "c"}},
        {"labels": {"id": "c"}},
        {"other": 1},
        {"name": 1},
    ):
        assert (await client.patch("/v1/devices/new", json=wrong)).status_code == 400, wrong
    assert (await client.patch("/v1/devices/nobody", json={})).status_code == 404


async def test_a_retired_device_is_refused_and_hidden_but_not_forgotten(client) -> None:
    device = await enrol(client, "a")
    await device.send(device.report())
    assert (await client.post("/v1/devices/a/retire")).json()["retired_at"] is not None
    assert (await device.send(device.report())).status_code == 401
    assert (await client.get("/v1/devices")).json()["devices"] == []
    shown = (await client.get("/v1/devices", params={"retired": True})).json()["devices"]
    assert [one["id"] for one in shown] == [device.id]
    path = "/v1/devices/a/models/kws"
    assert (await client.put(path, json={"release": None})).status_code == 409


async def test_a_release_is_assigned_by_hand_and_taken_back(client) -> None:
    repository = await sr.init(client)
    await sr.publish(client, repository, "kws", 1)
    device = await enrol(client, "a")
    path = "/v1/devices/a/models/kws"
    answer = await client.put(path, json={"release": 1, "hold": True})
    assert (
        answer.json()["models"]["kws"]["assigned"] | {"release": 1, "attempt": 1, "hold": True}
        == (answer.json()["models"]["kws"]["assigned"])
    )
    assert (await device.poll()).json()["models"] == {"kws": {"release": 1, "hold": True}}
    assert (await client.put(path, json={"release": 2})).status_code == 404
    assert (await client.put(path, json={"release": None})).status_code == 200
    assert (await device.poll()).json()["models"] == {"kws": {"release": None}}
    assert (await client.delete(path)).json()["models"] == {}
    assert "models" not in (await device.poll()).json()


async def test_the_same_release_after_it_failed_is_another_attempt(client) -> None:
    repository = await sr.init(client)
    await sr.publish(client, repository, "kws", 1)
    device = await enrol(client, "a")

    async def assign() -> int:
        answer = await client.put("/v1/devices/a/models/kws", json={"release": 1})
        attempt: int = answer.json()["models"]["kws"]["assigned"]["attempt"]
        return attempt

    assert [await assign(), await assign()] == [1, 1]
    failed = {"state": "FAILED", "target": 1, "attempt": 1, "result": "FAILED_ROLLBACK_COMPLETE"}
    await device.send(device.report(models={"kws": failed}))
    assert [await assign(), await assign()] == [2, 2]
    await device.send(device.report(models={"kws": failed | {"attempt": 2, "result": "SUCCESSFUL"}}))
    assert await assign() == 2


async def test_a_release_that_failed_is_tried_again_though_another_ran_in_between(client) -> None:
    """The device keeps which attempt failed, and would pass the same one over without a word."""
    repository = await sr.init(client)
    for release in (1, 2):
        await sr.publish(client, repository, "kws", release)
    device = await enrol(client, "a")
    path = "/v1/devices/a/models/kws"
    await client.put(path, json={"release": 2})
    ended = {"state": "FAILED", "attempt": 1, "result": "FAILED_ROLLBACK_COMPLETE"}
    event = {"seq": 0, "at": 1.0, "model": "kws", "release": 2} | ended
    await device.send(device.report(models={"kws": {"target": 2} | ended}, events=[event]))
    await client.put(path, json={"release": 1})
    back = {"state": "COMMITTED", "target": 1, "running": 1, "attempt": 1, "result": "SUCCESSFUL"}
    await device.send(device.report(models={"kws": back}))
    answer = await client.put(path, json={"release": 2})
    assert answer.json()["models"]["kws"]["assigned"]["attempt"] == 2


async def test_events_come_the_newest_first_in_pages(client) -> None:
    device = await enrol(client, "a")
    events = [
        {"seq": seq, "at": 1.0, "model": "ab"[seq % 2], "release": 1, "attempt": 1, "state": "FETCHING"}
        for seq in range(6)
    ]
    await device.send(device.report(events=events))
    page = (await client.get("/v1/devices/a/events", params={"limit": 4})).json()
    rest = (await client.get("/v1/devices/a/events", params={"after": page["next"]})).json()
    assert [one["seq"] for one in page["events"] + rest["events"]] == [5, 4, 3, 2, 1, 0]
    of_b = (await client.get("/v1/devices/a/events", params={"model": "b"})).json()["events"]
    assert [one["seq"] for one in of_b] == [5, 3, 1]


# --- groups


async def test_groups_are_named_selectors(client) -> None:
    await enrol(client, labels={"site": "berlin"})
    await enrol(client, labels={"site": "rome"})
    assert (await client.put("/v1/groups/berlin", json={"selector": "site=berlin"})).json()["devices"] == 1
    assert (await client.put("/v1/groups/berlin", json={"selector": "site"})).json()["devices"] == 2
    assert [one["name"] for one in (await client.get("/v1/groups")).json()["groups"]] == ["berlin"]
    assert (await client.put("/v1/groups/x", json={"selector": "a b"})).status_code == 400
    assert (await client.delete("/v1/groups/berlin")).status_code == 204
    assert (await client.get("/v1/groups/berlin")).status_code == 404


# --- tokens and roles


async def test_a_token_works_until_it_is_revoked_and_its_secret_is_shown_once(client) -> None:
    headers = await _token(client, "viewer", "anna")
    assert (await client.get("/v1/devices", headers=headers)).status_code == 200
    listed = (await client.get("/v1/tokens")).text
    assert headers["Authorization"].partition(" ")[2] not in listed
    assert (await client.post("/v1/tokens", json={"name": "anna", "role": "viewer"})).status_code == 409
    assert (await client.delete("/v1/tokens/anna")).status_code == 204
    assert (await client.get("/v1/devices", headers=headers)).status_code == 401
    assert (await client.delete("/v1/tokens/admin")).status_code == 409


async def test_each_role_may_what_those_below_may_and_no_more(client) -> None:
    device = await enrol(client, "a")
    viewer, operator = await _token(client, "viewer"), await _token(client, "operator")
    for method, path, lowest in (
        ("GET", "/v1/devices", "viewer"),
        ("GET", "/v1/devices/a", "viewer"),
        ("GET", "/v1/devices/a/events", "viewer"),
        ("GET", "/v1/groups", "viewer"),
        ("GET", "/v1/releases", "viewer"),
        ("GET", "/v1/audit", "viewer"),
        ("GET", "/v1/audit/head", "viewer"),
        ("GET", "/v1/server", "viewer"),
        ("GET", "/v1/repository", "viewer"),
        ("PATCH", "/v1/devices/a", "operator"),
        ("PUT", "/v1/devices/a/models/kws", "operator"),
        ("DELETE", "/v1/devices/a/models/kws", "operator"),
        ("PUT", "/v1/groups/g", "operator"),
        ("DELETE", "/v1/groups/none", "operator"),
        ("POST", "/v1/releases", "operator"),
        ("POST", "/v1/releases/kws/1/withdraw", "operator"),
        ("GET", "/v1/tokens", "admin"),
        ("POST", "/v1/tokens", "admin"),
        ("DELETE", "/v1/tokens/none", "admin"),
        ("GET", "/v1/join-tokens", "admin"),
        ("POST", "/v1/join-tokens", "admin"),
        ("POST", "/v1/repository/init", "admin"),
    ):
        for role, headers in (("device", device.headers), ("viewer", viewer), ("operator", operator)):
            allowed = auth.RANKS[role] >= auth.RANKS[lowest]
            answer = await client.request(method, path, headers=headers, json={} if method != "GET" else None)
            assert (answer.status_code == 403) != allowed, (method, path, role)
            assert answer.status_code != 401


async def test_refusals_are_in_the_audit_log_once_a_minute_with_their_count(client, services) -> None:
    headers = await _token(client, "viewer", "anna")
    for _ in range(20):
        await client.post("/v1/devices/x/retire", headers=headers)
        await client.get("/v1/devices", headers={"Authorization": "Bearer nobody"})
    rows = await refusals(client)
    assert sorted(row["actor"] for row in rows) == ["anonymous:127.0.0.1", "viewer:anna"]
    await services.refusals.flush()
    again = [row for row in await refusals(client) if row["object"] == "again"]
    assert [row["detail"]["count"] for row in again] == [19, 19]


async def test_strangers_from_many_addresses_are_counted_together(client, services) -> None:
    for number in range(500):
        await services.refusals.note(f"anonymous:10.0.{number // 250}.{number % 250}", "GET /", "unknown")
    rows = await refusals(client)
    assert len(rows) <= 202
    assert any(row["actor"] == "anonymous:many" for row in rows)


async def test_the_audit_log_tells_who_did_what_in_one_chain(client) -> None:
    headers = await _token(client, "operator", "bert")
    await enrol(client, "a")
    await asyncio.gather(
        client.patch("/v1/devices/a", json={"labels": {"x": "y"}}, headers=headers),
        client.put("/v1/groups/g", json={"selector": ""}, headers=headers),
        join_token(client),
    )
    rows = (await client.get("/v1/audit", params={"limit": 1000})).json()["audit"]
    actions = {(row["actor"], row["action"]) for row in rows}
    assert {("operator:bert", "device.change"), ("operator:bert", "group.set")} <= actions
    assert ("admin:admin", "join_token.create") in actions
    previous = audit_chain.START
    for row in rows:
        assert row["previous_sha256"] == previous
        previous = audit_chain.row_sha256(previous, row)
        assert row["sha256"] == previous
    assert (await client.get("/v1/audit/head")).json() == {"id": rows[-1]["id"], "sha256": previous}
    page = (await client.get("/v1/audit", params={"after": rows[1]["id"], "limit": 2})).json()
    assert [row["id"] for row in page["audit"]] == [3, 4]
    only = (await client.get("/v1/audit", params={"action": "group.set"})).json()["audit"]
    assert [row["object"] for row in only] == ["g"]


async def test_every_call_is_described(client, app) -> None:
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://s") as anybody:
        document = (await anybody.get("/v1/openapi.json")).json()
    described = {path for path in document["paths"] if path.startswith("/v1/")}
    assert {"/v1/agent/state", "/v1/agent/reports", "/v1/enrol", "/v1/rollouts", "/v1/server"} <= described
    for path, methods in document["paths"].items():
        for method, call in methods.items():
            assert call.get("summary"), (method, path)
            assert call.get("description"), (method, path)
    text = str(document)
    for name in {part.split("'")[0] for part in text.split("#/components/schemas/")[1:]}:
        assert name in document["components"]["schemas"], name
