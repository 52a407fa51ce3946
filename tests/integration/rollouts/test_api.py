"""The calls of rollouts, on both databases: what they answer, and who may make them."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest
from edgeml_devices.messages import Result, State
from edgeml_devices.server.auth import make_token
from edgeml_devices.server.services import Services

from tests.integration.rollouts.fleet import MODEL, PI
from tests.integration.rollouts.publishing import publish
from tests.integration.server.devices import Device, enrol

pytestmark = pytest.mark.anyio
RULES = {"model": MODEL, "release": 2, "selector": "", "waves": [{"count": 1}, {"percent": 100}]}


@pytest.fixture
async def two_devices(client: httpx2.AsyncClient, services: Services) -> list[Device]:
    await publish(services.database, services.settings.data, 1, 2)
    devices = [await enrol(client, name, facts=PI) for name in ("one", "two")]
    for device in devices:
        status = {"state": State.IDLE, "running": 1, "variant": "litert-int8"}
        answer = await device.send(device.report(models={MODEL: status}))
        assert answer.status_code == 200, answer.text
    return devices


async def post(client: httpx2.AsyncClient, path: str, body: Any = None, *, status: int = 200) -> Any:
    answer = await client.post(f"/v1/rollouts{path}", json=body)
    assert answer.status_code == status, answer.text
    return answer.json()


async def until(client: httpx2.AsyncClient, rollout: str, **wanted: Any) -> Any:
    deadline = time.monotonic() + 60
    while True:
        found = (await client.get(f"/v1/rollouts/{rollout}")).json()
        if all(found[name] == value for name, value in wanted.items()):
            return found
        assert time.monotonic() < deadline, found
        await asyncio.sleep(0.05)


async def obey(device: Device) -> None:
    """Poll, and commit what is asked."""
    desired = (await device.poll(0, wait=50)).json()["models"][MODEL]
    ended = {
        "running": desired["release"],
        "variant": "litert-int8",
        "target": desired["release"],
        "result": Result.SUCCESSFUL,
    }
    answer = await device.send(device.report(models={MODEL: {"state": State.IDLE} | ended}))
    assert answer.status_code == 200, answer.text


async def test_a_rollout_from_the_first_call_to_its_end(
    client: httpx2.AsyncClient, two_devices: list[Device]
) -> None:
    made = await post(client, "", RULES, status=201)
    assert (made["state"], made["wave"]) == ("READY", 0)
    rollout = made["id"]
    started = await post(client, f"/{rollout}/start")
    assert [wave["counts"]["waiting"] for wave in started["waves"]] == [1, 1]
    await until(client, rollout, wave=1)
    for wave in (1, 2):
        await until(client, rollout, wave=wave, progress={"": 1})
        page = (await client.get(f"/v1/rollouts/{rollout}/devices", params={"state": "ASSIGNED"})).json()
        (device,) = (one for one in two_devices if one.id == page["devices"][0]["device"])
        await obey(device)
    found = await until(client, rollout, state="FINISHED")
    assert found["counts"]["succeeded"] == 2
    listed = (await client.get("/v1/rollouts")).json()
    assert [one["id"] for one in listed["rollouts"]] == [rollout]
    log = (await client.get("/v1/audit", params={"object": rollout, "limit": 1000})).json()["audit"]
    assert [row["action"] for row in log] == [
        "rollout.create",
        "rollout.start",
        "rollout.wave",
        "rollout.assign",
        "rollout.outcome",
        "rollout.wave",
        "rollout.assign",
        "rollout.outcome",
        "rollout.finish",
    ]


async def test_within_a_window_a_device_is_told_how_long_it_stays_open(
    client: httpx2.AsyncClient, two_devices: list[Device]
) -> None:
    opened = datetime.now(UTC) - timedelta(hours=1)
    window = {"start": f"{opened:%H:%M}", "duration_s": 7200}
    rules = RULES | {"waves": [{"percent": 100}], "windows": [window], "timezone": "UTC"}
    rollout = (await post(client, "", rules, status=201))["id"]
    await post(client, f"/{rollout}/start")
    await until(client, rollout, progress={"": 2})
    told = (await two_devices[0].poll(0, wait=50)).json()["models"][MODEL]
    assert "hold" not in told
    assert 0 < told["open_for_s"] <= 3600


async def test_the_plan_counts_the_bytes_that_each_device_has_to_load(
    client: httpx2.AsyncClient, two_devices: list[Device]
) -> None:
    await enrol(client, "three")
    await enrol(client, "four", facts=PI | {"engines": {"onnxruntime": "1.20"}})
    plan = await post(client, "/plan", RULES)
    by_name = {one["name"]: one for one in plan["devices"]}
    assert by_name["one"]["variants"] == ["litert-int8"]
    assert by_name["one"]["size_bytes"] == 1000, "labels.txt is there already, with release 1"
    assert by_name["three"]["size_bytes"] is None
    assert by_name["four"]["skipped"] == "incompatible"
    assert plan["size_bytes"] == 2000
    assert plan["skipped"] == {"incompatible": 1}
    assert sum(wave["devices"] for wave in plan["waves"]) == 3
    assert (await client.get("/v1/rollouts")).json()["rollouts"] == []


async def test_the_plan_is_what_then_happens(client: httpx2.AsyncClient, two_devices: list[Device]) -> None:
    plan = await post(client, "/plan", RULES)
    rollout = (await post(client, "", RULES, status=201))["id"]
    await post(client, f"/{rollout}/start")
    page = (await client.get(f"/v1/rollouts/{rollout}/devices")).json()
    assert {one["name"]: one["wave"] for one in page["devices"]} == {
        one["name"]: one["wave"] for one in plan["devices"]
    }


@pytest.mark.parametrize(
    ("change", "status", "said"),
    [
        ({"wawes": []}, 400, "unknown key 'wawes'"),
        ({"selector": "a=(("}, 400, "selector"),
        ({"waves": [{"selector": "!!"}]}, 400, "selector"),
        ({"release": 9}, 404, "kws/9"),
        ({"selector": None, "group": "nobody"}, 404, "no group 'nobody'"),
    ],
)
async def test_what_cannot_be_rolled_out_is_refused_at_once(
    client: httpx2.AsyncClient, two_devices: list[Device], change: dict[str, Any], status: int, said: str
) -> None:
    for path in ("", "/plan"):
        found = await post(client, path, RULES | change, status=status)
        assert said in found["error"]["message"]


async def test_a_viewer_sees_and_plans_and_moves_nothing(
    client: httpx2.AsyncClient, services: Services, two_devices: list[Device]
) -> None:
    rollout = (await post(client, "", RULES, status=201))["id"]
    async with services.database.writing() as tx:
        _, viewer = await make_token(tx, "server", "vera", "viewer")
    as_viewer = {"Authorization": f"Bearer {viewer}"}
    assert (await client.get(f"/v1/rollouts/{rollout}", headers=as_viewer)).status_code == 200
    assert (await client.post("/v1/rollouts/plan", json=RULES, headers=as_viewer)).status_code == 200
    for path in ("", *(f"/{rollout}/{verb}" for verb in ("start", "abort", "next", "approve", "retry"))):
        answer = await client.post(f"/v1/rollouts{path}", json={}, headers=as_viewer)
        assert answer.status_code == 403
    for path in ("", f"/{rollout}", f"/{rollout}/devices"):
        answer = await client.get(f"/v1/rollouts{path}", headers=two_devices[0].headers)
        assert answer.status_code == 403, "a device reads nothing of others"


async def test_the_second_person_is_known_by_another_token(
    client: httpx2.AsyncClient, services: Services, two_devices: list[Device]
) -> None:
    rollout = (await post(client, "", RULES | {"approval": True}, status=201))["id"]
    refused = await post(client, f"/{rollout}/approve", status=403)
    assert "somebody else" in refused["error"]["message"]
    async with services.database.writing() as tx:
        _, other = await make_token(tx, "server", "bob", "operator")
    answer = await client.post(
        f"/v1/rollouts/{rollout}/approve", headers={"Authorization": f"Bearer {other}"}
    )
    assert answer.json()["approved_by"] == "operator:bob"
    assert (await post(client, f"/{rollout}/start"))["state"] == "RUNNING"


async def test_pages_of_devices_come_by_name(client: httpx2.AsyncClient, two_devices: list[Device]) -> None:
    rollout = (await post(client, "", RULES, status=201))["id"]
    await post(client, f"/{rollout}/start")
    path = f"/v1/rollouts/{rollout}/devices"
    first = (await client.get(path, params={"limit": 1})).json()
    second = (await client.get(path, params={"limit": 1, "after": first["next"]})).json()
    assert [page["devices"][0]["name"] for page in (first, second)] == ["one", "two"]
    assert second["next"] is None


async def test_what_is_not_there_is_404_and_what_cannot_be_now_is_409(
    client: httpx2.AsyncClient, two_devices: list[Device]
) -> None:
    await post(client, "/nothing/start", status=404)
    rollout = (await post(client, "", RULES, status=201))["id"]
    for verb in ("pause", "resume", "next", "retry", "approve"):
        refused = await post(client, f"/{rollout}/{verb}", status=409)
        assert "is READY" in refused["error"]["message"]
    await post(client, f"/{rollout}/abort", {"reason": "changed my mind"})
    found = (await client.get(f"/v1/rollouts/{rollout}")).json()
    assert (found["state"], found["reason"]) == ("ABORTED", "changed my mind")


@pytest.mark.parametrize("release", [1, 10**12, 2**53])
async def test_a_rollouts_id_is_short_and_begins_with_the_model(
    client: httpx2.AsyncClient, services: Services, release: int
) -> None:
    """One that began with a dash was an option to every command."""
    await publish(services.database, services.settings.data, release)
    made = await post(client, "", RULES | {"release": release}, status=201)
    assert len(made["id"]) <= 32
    assert made["id"].startswith(MODEL[:3])
    assert f"-{release}-" in made["id"]
