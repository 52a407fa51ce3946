"""Releases: listed when they are signed and whole."""

from __future__ import annotations

import pytest

from tests.integration.server import signed_repository as sr
from tests.integration.server.devices import enrol

pytestmark = pytest.mark.anyio


async def test_a_release_is_listed_with_its_size_and_manifest(client) -> None:
    repository = await sr.init(client)
    for release in (1, 2, 10):
        await sr.publish(client, repository, "kws", release)
    await sr.publish(client, repository, "wake", 1)
    listed = (await client.get("/v1/releases")).json()["releases"]
    assert [(one["model"], one["release"]) for one in listed] == [
        ("kws", 10),
        ("kws", 2),
        ("kws", 1),
        ("wake", 1),
    ]
    assert [one["release"] for one in (await client.get("/v1/releases/kws")).json()["releases"]] == [10, 2, 1]
    shown = (await client.get("/v1/releases/kws/2")).json()
    assert shown["family"] == "speech"
    assert shown["size_bytes"] == len(b"weights of kws 2")
    assert shown["manifest"]["name"] == "kws"
    assert shown["published_by"] == "admin:admin"
    assert (await client.get("/v1/releases/kws/3")).status_code == 404


async def test_pages_of_releases_leave_none_out(client) -> None:
    repository = await sr.init(client)
    for model, release in (("kws", 1), ("kws", 2), ("wake", 1)):
        await sr.publish(client, repository, model, release)
    found, after = [], ""
    while after is not None:
        page = (await client.get("/v1/releases", params={"limit": 1, "after": after})).json()
        found += [(one["model"], one["release"]) for one in page["releases"]]
        after = page["next"]
    assert found == [("kws", 2), ("kws", 1), ("wake", 1)]


async def test_the_same_release_again_is_no_mistake(client) -> None:
    repository = await sr.init(client)
    await sr.publish(client, repository, "kws", 1)
    again = await client.post("/v1/releases", json={"model": "kws", "release": 1})
    assert again.status_code == 200


async def test_a_release_whose_files_are_missing_is_refused_and_they_are_named(client) -> None:
    repository = await sr.init(client)
    text = sr.manifest("kws", 1, {"model.tflite": b"weights"})
    await sr.upload(client, text)
    await sr.put(client, "speech", repository.next_family(("kws", 1, text)))
    body = {"model": "kws", "release": 1}
    answer = await client.post("/v1/releases", json=body)
    assert answer.status_code == 409
    (missing,) = answer.json()["missing"]
    assert await sr.upload(client, b"weights") == missing
    assert (await client.post("/v1/releases", json=body)).status_code == 201


async def test_what_was_not_signed_or_is_of_another_release_is_no_release(client) -> None:
    repository = await sr.init(client)
    assert (await client.post("/v1/releases", json={"model": "kws", "release": 1})).status_code == 404
    for number, text in ((1, sr.manifest("kws", 2, {})), (2, sr.manifest("wake", 2, {})), (3, b"{}")):
        await sr.upload(client, text)
        family = repository.next_family(("kws", number, text))
        await sr.put(client, "speech", family)
        repository.family = family
        answer = await client.post("/v1/releases", json={"model": "kws", "release": number})
        assert answer.status_code == 409, number


async def test_a_withdrawn_release_is_not_assigned_any_more(client) -> None:
    repository = await sr.init(client)
    await sr.publish(client, repository, "kws", 1)
    device = await enrol(client)
    path = f"/v1/devices/{device.id}/models/kws"
    assert (await client.put(path, json={"release": 1})).status_code == 200
    withdrawn = await client.post("/v1/releases/kws/1/withdraw")
    assert withdrawn.json()["withdrawn_at"] is not None
    assert (await client.put(path, json={"release": 1})).status_code == 409


async def test_a_withdrawn_release_is_taken_back_from_devices_that_do_not_run_it(client) -> None:
    repository = await sr.init(client)
    await sr.publish(client, repository, "kws", 1)
    waiting, running = await enrol(client, "waiting"), await enrol(client, "running")
    for device in (waiting, running):
        await client.put(f"/v1/devices/{device.id}/models/kws", json={"release": 1})
    status = {"state": "COMMITTED", "running": 1, "target": 1, "result": "SUCCESSFUL"}
    await running.send(running.report(models={"kws": status}))
    await client.post("/v1/releases/kws/1/withdraw")
    assert "models" not in (await waiting.poll()).json()
    assert (await running.poll()).json()["models"] == {"kws": {"release": 1}}
    (row,) = (await client.get("/v1/audit", params={"action": "release.withdraw"})).json()["audit"]
    assert row["detail"] == {"unassigned": 1}


async def test_a_release_below_the_floor_is_neither_listed_nor_assigned(client) -> None:
    repository = await sr.init(client)
    await sr.publish(client, repository, "kws", 1)
    text = sr.manifest("kws", 2, {})
    await sr.upload(client, text)
    await sr.put(client, "speech", repository.next_family(("kws", 2, text)))
    targets = repository.next_targets()
    targets.signed.delegations.roles["speech"].unrecognized_fields["edgeml_floor"] = {"kws": 3}
    await sr.put(client, "targets", sr.signed(targets, [repository.targets_key]))
    assert (await client.post("/v1/releases", json={"model": "kws", "release": 2})).status_code == 409
    device = await enrol(client)
    answer = await client.put(f"/v1/devices/{device.id}/models/kws", json={"release": 1})
    assert answer.status_code == 409
    assert "below 3" in answer.json()["error"]["message"]
