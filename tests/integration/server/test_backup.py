"""Back-up and restore: everything, from any database to any other; devices go on with the restored server."""

from __future__ import annotations

import tarfile
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest
from edgeml_devices.server.app import create_app
from edgeml_devices.server.backup import AHEAD, back_up, restore
from edgeml_devices.server.settings import ServerSettings
from tuf.api.metadata import Metadata

from edgeml.errors import MessageError, UsageError
from tests.integration.server import signed_repository as sr
from tests.integration.server.devices import enrol, join_token

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["sqlite", "postgresql"])
def other(request: pytest.FixtureRequest, tmp_path: Path):
    """The settings of an empty server."""
    if request.param == "sqlite":
        yield ServerSettings(tmp_path / "other")
        return
    postgres = request.getfixturevalue("postgres")
    url = postgres.create()
    yield ServerSettings(tmp_path / "other", url)
    postgres.drop(url)


@pytest.fixture
async def filled(client, tmp_path: Path, services):
    """A server with a repository, a release and a device, and its back-up."""
    repository = await sr.init(client)
    await sr.publish(client, repository, "kws", 1)
    device = await enrol(client, "line-4")
    await client.put(f"/v1/devices/{device.id}/models/kws", json={"release": 1})
    events = [
        {"seq": 0, "at": 1.0, "model": "kws", "release": 1, "attempt": 1, "state": "FETCHING", "detail": "ü"}
    ]
    await device.send(device.report(events=events, models={"kws": {"state": "FETCHING"}}))
    await back_up(services.settings, tmp_path / "backup.tar")
    return repository, device


async def _rows(client) -> dict[str, object]:
    found = {}
    for path in ("devices", "devices/line-4/events", "releases", "tokens", "join-tokens"):
        found[path] = (await client.get(f"/v1/{path}")).json()
    found["audit"] = (await client.get("/v1/audit", params={"limit": 1000})).json()["audit"]
    return found


def _client(app, token: str) -> httpx2.AsyncClient:
    headers = {"Authorization": f"Bearer {token}"}
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://s", headers=headers)


async def test_a_restored_server_is_the_same_and_goes_on(
    client, admin_token, filled, other, tmp_path
) -> None:
    repository, device = filled
    before = await _rows(client)
    restored = await restore(other, tmp_path / "backup.tar")
    assert restored.blobs == 2
    assert restored.roles == ("root", "speech", "targets")
    app = create_app(other)
    async with app.router.lifespan_context(app), _client(app, admin_token) as again:
        after = await _rows(again)
        log = after.pop("audit")
        assert log[: len(before["audit"])] == before.pop("audit")
        assert [row["action"] for row in log][-1] == "server.restore"
        for rows in (before, after):
            rows["devices"]["devices"][0].pop("last_seen")
        assert after["devices"]["devices"][0].pop("generation") == AHEAD + before["devices"]["devices"][
            0
        ].pop("generation")
        assert after == before
        device.client = again
        assert (await device.poll(1)).json()["models"] == {"kws": {"release": 1}}
        event = {"seq": 1, "at": 1.0, "model": "kws", "release": 1, "attempt": 1, "state": "STAGED"}
        assert (await device.send(device.report(events=[event]))).json()["events"] == 1
        await sr.publish(again, repository, "kws", 2)


async def test_a_restored_server_signs_above_everything_that_devices_saw(
    client, filled, other, tmp_path, admin_token
) -> None:
    repository, _ = filled
    for release in range(2, 5):
        await sr.publish(client, repository, "kws", release)
    seen = Metadata.from_bytes((await client.get("/v1/repository/metadata/timestamp.json")).content).signed
    await restore(other, tmp_path / "backup.tar")
    app = create_app(other)
    async with app.router.lifespan_context(app), _client(app, admin_token) as again:
        now = Metadata.from_bytes((await again.get("/v1/repository/metadata/timestamp.json")).content).signed
        assert now.version > seen.version + AHEAD / 2
        assert now.snapshot_meta.version > seen.snapshot_meta.version + AHEAD / 2
        # what was signed after the back-up is pushed again, though versions lie between
        for release in range(2, 5):
            await sr.upload(
                again, sr.manifest("kws", release, {"model.tflite": f"weights of kws {release}".encode()})
            )
        assert repository.family.signed.version == 5
        assert (await sr.put(again, "speech", repository.family)).status_code == 200
        skipped = repository.next_family()
        skipped.signed.version += 1
        assert (await sr.put(again, "speech", sr.signed(skipped, [repository.family_key]))).status_code == 409


async def test_only_an_empty_folder_and_an_empty_database_are_filled(
    filled, services, other, tmp_path
) -> None:
    file = tmp_path / "backup.tar"
    with pytest.raises(UsageError, match="holds something"):
        await restore(services.settings, file)
    with pytest.raises(UsageError, match="holds something"):
        await restore(replace(services.settings, data=tmp_path / "empty"), file)
    assert not (tmp_path / "empty").exists()


async def test_a_damaged_backup_leaves_everything_empty(filled, other, tmp_path) -> None:
    whole = (tmp_path / "backup.tar").read_bytes()
    damaged = tmp_path / "damaged.tar"
    blob = whole.index(b"weights of kws 1")
    for content in (whole[: len(whole) // 2], whole[:blob] + b"X" + whole[blob + 1 :], b"", b"x" * 2000):
        damaged.write_bytes(content)
        with pytest.raises(MessageError, match="no whole back-up"):
            await restore(other, damaged)
        assert not other.data.exists()
    assert (await restore(other, tmp_path / "backup.tar")).blobs == 2


async def test_only_its_owner_may_read_a_backup_and_it_is_whole_or_not_there(
    filled, services, tmp_path
) -> None:
    assert (tmp_path / "backup.tar").stat().st_mode & 0o777 == 0o600
    with tarfile.open(tmp_path / "backup.tar") as archive:
        names = archive.getnames()
    assert names[0] == "backup.json"
    assert "keys/timestamp.1.pem" in names
    with pytest.raises(OSError, match="nowhere"):
        await back_up(services.settings, tmp_path / "nowhere" / "backup.tar")


async def test_join_tokens_of_the_back_up_are_revoked(client, services, other, tmp_path) -> None:
    """One that was used up after the back-up would enrol once more."""
    token = await join_token(client)
    await back_up(services.settings, tmp_path / "backup.tar")
    done = await restore(other, tmp_path / "backup.tar")
    assert done.join_tokens == 1
    app = create_app(other)
    async with app.router.lifespan_context(app), _client(app, "") as restored:
        body = {"join_token": token, "device_token": "x" * 43}
        assert (await restored.post("/v1/enrol", json=body)).status_code == 401
