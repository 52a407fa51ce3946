"""How devices are let in, and what keeps others out."""

from __future__ import annotations

import asyncio
import secrets

import pytest

from tests.integration.server.devices import enrol, join_token, refusals

pytestmark = pytest.mark.anyio
FACTS = {"target": {"name": "pi4", "cores": 4}, "engines": {"litert": "2.3.0"}, "edgeml": "0.1.0"}


def _request(join: str, **fields):
    return {"join_token": join, "device_token": secrets.token_urlsafe(32)} | fields


async def test_a_device_gets_an_id_a_name_and_the_labels_of_its_join_token(client) -> None:
    join = await join_token(client, labels={"site": "berlin"})
    answer = await client.post(
        "/v1/enrol", json=_request(join, name="line 4", facts=FACTS, labels={"site": "rome", "ring": "a"})
    )
    assert answer.status_code == 201
    enrolled = answer.json()
    assert enrolled["name"] == "line-4"
    assert enrolled["labels"] == {"site": "berlin", "ring": "a"}
    shown = (await client.get("/v1/devices/line-4")).json()
    assert shown["id"] == enrolled["device_id"]
    assert shown["facts"]["target"]["name"] == "pi4"


async def test_two_devices_with_one_wish_get_two_names(client) -> None:
    join = await join_token(client, uses=12)
    answers = await asyncio.gather(
        *(client.post("/v1/enrol", json=_request(join, name="pi")) for _ in range(12))
    )
    assert [answer.status_code for answer in answers] == [201] * 12
    names = {answer.json()["name"] for answer in answers}
    assert names == {"pi", *(f"pi-{number}" for number in range(2, 13))}


async def test_a_device_that_asks_again_is_the_same_also_when_the_join_token_is_used_up(client) -> None:
    request = _request(await join_token(client, uses=1))
    first, again = [await client.post("/v1/enrol", json=request) for _ in range(2)]
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json()["device_id"] == again.json()["device_id"]
    assert len((await client.get("/v1/devices")).json()["devices"]) == 1


async def test_a_device_that_asks_twice_at_once_uses_its_join_token_once(client) -> None:
    request = _request(await join_token(client, uses=2))
    answers = await asyncio.gather(*(client.post("/v1/enrol", json=request) for _ in range(6)))
    assert sorted(answer.status_code for answer in answers) == [200] * 5 + [201]
    assert (await client.get("/v1/join-tokens")).json()["join_tokens"][0]["uses_left"] == 1


async def test_a_used_join_token_lets_no_other_device_in_and_the_audit_log_says_so(client) -> None:
    join = await join_token(client, uses=1)
    assert (await client.post("/v1/enrol", json=_request(join))).status_code == 201
    other = await client.post("/v1/enrol", json=_request(join))
    assert other.status_code == 401
    assert "used up" in other.json()["error"]["message"]
    assert "used up" in (await refusals(client))[0]["detail"]["reason"]
    assert len((await client.get("/v1/devices")).json()["devices"]) == 1


async def test_a_join_token_used_by_many_at_once_is_used_as_often_as_it_may(client) -> None:
    join = await join_token(client, uses=3)
    answers = await asyncio.gather(*(client.post("/v1/enrol", json=_request(join)) for _ in range(9)))
    assert sorted(answer.status_code for answer in answers) == [201] * 3 + [401] * 6


async def test_an_expired_a_revoked_and_an_unknown_join_token_let_nobody_in(client) -> None:
    expired = await join_token(client, ttl_s=0.001)
    revoked = await join_token(client)
    for row in (await client.get("/v1/join-tokens")).json()["join_tokens"]:
        if row["expires_at"] - row["created_at"] > 1:
            assert (await client.delete(f"/v1/join-tokens/{row['id']}")).status_code == 204
    await asyncio.sleep(0.01)
    for join, reason in ((expired, "expired"), (revoked, "revoked"), ("nonsense", "unknown")):
        answer = await client.post("/v1/enrol", json=_request(join))
        assert answer.status_code == 401
        assert reason in answer.json()["error"]["message"]


async def test_a_retired_device_is_not_let_in_again_by_its_old_token(client) -> None:
    device = await enrol(client)
    assert (await client.post(f"/v1/devices/{device.id}/retire")).status_code == 200
    request = {"join_token": await join_token(client), "device_token": device.token}
    assert (await client.post("/v1/enrol", json=request)).status_code == 401
    assert (await device.poll()).status_code == 401


async def test_a_request_that_cannot_be_is_refused_by_its_field(client) -> None:
    join = await join_token(client)
    for fields, place in (
        ({"device_token": "short"}, "device_token"),
        ({"device_token": 5}, "device_token"),
        ({"labels": {"site": "a b"}}, "site"),
        ({"labels": {"name": "x"}}, "name"),
        ({"facts": {"engines": {}}}, "facts.target"),
    ):
        answer = await client.post("/v1/enrol", json=_request(join) | fields)
        assert answer.status_code == 400, fields
        assert place in answer.json()["error"]["message"]


async def test_facts_that_are_nested_too_deep_are_refused_and_break_no_list(client) -> None:
    deep: object = 1
    for _ in range(300):
        deep = [deep]
    facts = FACTS | {"target": {"name": deep}}
    answer = await client.post("/v1/enrol", json=_request(await join_token(client), facts=facts))
    assert answer.status_code == 400
    assert "nested more than 32 deep" in answer.json()["error"]["message"]
    assert (await client.get("/v1/devices")).json()["devices"] == []
