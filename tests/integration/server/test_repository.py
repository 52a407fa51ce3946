"""The signed repository: what is taken, what is refused, and what a stock python-tuf client makes of it."""

from __future__ import annotations

import copy
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx2
import pytest
from securesystemslib.signer import CryptoSigner, SSlibKey
from tuf.api.metadata import Metadata
from tuf.ngclient import Updater

from tests.integration.server import signed_repository as sr
from tests.integration.server.devices import refusals

pytestmark = pytest.mark.anyio


async def _versions(client) -> dict[str, int]:
    roles = (await client.get("/v1/repository")).json()["roles"]
    return {name: role["version"] for name, role in roles.items()}


async def _metadata(client, file: str) -> Metadata:
    answer = await client.get(f"/v1/repository/metadata/{file}")
    assert answer.status_code == 200, file
    return Metadata.from_bytes(answer.content)


async def test_a_stock_tuf_client_refreshes_and_downloads(server, tmp_path) -> None:
    headers = {"Authorization": f"Bearer {server.admin_token}"}
    async with httpx2.AsyncClient(base_url=server.url, headers=headers) as client:
        repository = await sr.init(client)
        text = await sr.publish(client, repository, "kws", 1)
        await sr.publish(client, repository, "wake", 7)

    def updater() -> Updater:
        return Updater(
            str(tmp_path / "trust"),
            f"{server.url}/v1/repository/metadata",
            str(tmp_path / "targets"),
            f"{server.url}/v1/repository/targets",
            bootstrap=repository.root.to_bytes(),
        )

    (tmp_path / "targets").mkdir()
    client_side = updater()
    client_side.refresh()
    assert _download(client_side, "models/kws/1.json") == text
    assert client_side.get_targetinfo("models/kws/2.json") is None
    assert server.stop() == 0
    server.start(port=int(server.url.rpartition(":")[2]))
    updater().refresh()


def _download(updater: Updater, target: str) -> bytes:
    found = updater.get_targetinfo(target)
    assert found is not None
    return Path(updater.download_target(found)).read_bytes()


async def test_timestamp_says_when_it_was_issued_and_how_the_audit_log_stands(client) -> None:
    await sr.init(client)
    signed = (await _metadata(client, "timestamp.json")).signed
    assert abs(signed.unrecognized_fields["edgeml_issued"] - time.time()) < 5
    log = (await client.get("/v1/audit")).json()["audit"]
    told = signed.unrecognized_fields["edgeml_audit"]
    assert told == {"id": log[told["id"] - 1]["id"], "sha256": log[told["id"] - 1]["sha256"]}


async def test_it_is_initialised_once_and_all_or_nothing(client) -> None:
    repository = sr.SignedRepository()
    repository.make((await client.get("/v1/repository/online-keys")).json())
    body = repository.init_body()
    for part, key in (("root", repository.root_keys[0]), ("targets", repository.family_key)):
        broken = copy.deepcopy(body)
        metadata = Metadata.from_dict(copy.deepcopy(body[part]))
        broken[part] = sr.signed(metadata, [key]).to_dict()
        answer = await client.post("/v1/repository/init", json=broken)
        assert answer.status_code == 403, part
        assert (await client.get("/v1/repository/metadata/timestamp.json")).status_code == 404
    assert (await client.post("/v1/repository/init", json=body)).status_code == 201
    assert (await client.post("/v1/repository/init", json=body)).status_code == 409
    assert await _versions(client) == {"root": 1, "targets": 1, "speech": 1, "snapshot": 1, "timestamp": 1}


async def test_a_root_without_the_servers_keys_is_refused(client) -> None:
    repository = sr.SignedRepository()
    online = (await client.get("/v1/repository/online-keys")).json()
    stranger = CryptoSigner.generate_ed25519().public_key
    repository.make(online | {"timestamp": {"keyid": stranger.keyid, **stranger.to_dict()}})
    answer = await client.post("/v1/repository/init", json=repository.init_body())
    assert answer.status_code == 403
    assert "timestamp" in answer.json()["error"]["message"]


async def test_the_next_version_is_taken_and_published(client) -> None:
    repository = await sr.init(client)
    text = sr.manifest("kws", 1, {})
    await sr.upload(client, text)
    answer = await sr.put(client, "speech", repository.next_family(("kws", 1, text)))
    assert answer.json()["roles"] == {"root": 1, "targets": 1, "speech": 2, "snapshot": 2, "timestamp": 2}
    snapshot = await _metadata(client, "2.snapshot.json")
    assert snapshot.signed.meta["speech.json"].version == 2
    timestamp = (await client.get("/v1/repository/metadata/timestamp.json")).json()
    assert timestamp["signed"]["meta"]["snapshot.json"]["version"] == 2


async def test_the_same_bytes_again_are_no_mistake(client) -> None:
    repository = await sr.init(client)
    family = repository.next_family()
    assert (await sr.put(client, "speech", family)).status_code == 200
    assert (await sr.put(client, "speech", family)).status_code == 200
    assert (await _versions(client))["speech"] == 2


async def test_another_version_than_the_next_is_a_conflict(client) -> None:
    repository = await sr.init(client)
    for version in (1, 3):
        metadata = repository.next_family()
        metadata.signed.version = version
        metadata.signed.targets = {}
        metadata.signed.expires += timedelta(days=1)
        answer = await sr.put(client, "speech", sr.signed(metadata, [repository.family_key]))
        assert answer.status_code == 409
        assert "next version is 2" in answer.json()["error"]["message"]


async def test_metadata_of_the_wrong_key_is_refused_and_in_the_audit_log(client) -> None:
    repository = await sr.init(client)
    wrong = {
        "speech": (repository.next_family(), repository.targets_key),
        "targets": (repository.next_targets(), repository.family_key),
        "root": (repository.next_root(), repository.root_keys[0]),
    }
    for role, (metadata, key) in wrong.items():
        assert (await sr.put(client, role, sr.signed(metadata, [key]))).status_code == 403, role
    assert len([row for row in await refusals(client) if "signed by" in row["detail"]["reason"]]) == 3
    assert (await _versions(client))["timestamp"] == 1


async def test_metadata_of_another_family_or_role_is_refused(client) -> None:
    repository = await sr.init(client)
    family = repository.next_family()
    family.signed.unrecognized_fields["edgeml_role"] = "vision"
    assert (await sr.put(client, "speech", sr.signed(family, [repository.family_key]))).status_code == 403
    assert (await sr.put(client, "vision", sr.signed(family, [repository.family_key]))).status_code == 403
    assert (await sr.put(client, "root", family)).status_code == 400
    for role in ("snapshot", "timestamp"):
        assert (await sr.put(client, role, family)).status_code == 409


async def test_what_no_device_should_get_is_refused(client) -> None:
    repository = await sr.init(client)
    text = sr.manifest("kws", 1, {})
    missing = await sr.put(client, "speech", repository.next_family(("kws", 1, text)))
    assert missing.status_code == 409
    assert len(missing.json()["missing"]) == 1
    await sr.upload(client, text)
    for model, release in (("other", 1), ("kws", "01"), ("../kws", 1)):
        answer = await sr.put(client, "speech", repository.next_family((model, release, text)))
        assert answer.status_code == 400, model
    expired = repository.next_family()
    expired.signed.expires = datetime.now(UTC).replace(microsecond=0) - timedelta(seconds=1)
    answer = await sr.put(client, "speech", sr.signed(expired, [repository.family_key]))
    assert answer.status_code == 400
    assert "expired" in answer.json()["error"]["message"]


async def test_a_signed_release_never_changes_or_goes(client) -> None:
    repository = await sr.init(client)
    await sr.publish(client, repository, "kws", 1)
    other = sr.manifest("kws", 1, {"x": b"other"})
    await sr.upload(client, other)
    assert (await sr.put(client, "speech", repository.next_family(("kws", 1, other)))).status_code == 403
    gone = repository.next_family()
    gone.signed.targets = {}
    assert (await sr.put(client, "speech", sr.signed(gone, [repository.family_key]))).status_code == 403


async def test_the_floor_only_rises(client) -> None:
    repository = await sr.init(client)
    for floor, expected in ((5, 200), (4, 400)):
        targets = repository.next_targets()
        targets.signed.delegations.roles["speech"].unrecognized_fields["edgeml_floor"] = {"kws": floor}
        answer = await sr.put(client, "targets", sr.signed(targets, [repository.targets_key]))
        assert answer.status_code == expected
        repository.targets = targets


async def test_a_new_root_is_signed_by_the_old_and_the_new_keys(client) -> None:
    repository = await sr.init(client)
    old, new = repository.root_keys[:2], [CryptoSigner.generate_ed25519() for _ in range(2)]
    root = repository.next_root()
    for key in repository.root_keys:
        root.signed.revoke_key(key.public_key.keyid, "root")
    for key in new:
        root.signed.add_key(key.public_key, "root")
    for signers in (old, new):
        assert (await sr.put(client, "root", sr.signed(root, signers))).status_code == 403
    assert (await sr.put(client, "root", sr.signed(root, [*old, *new]))).status_code == 200
    assert (await client.get("/v1/repository/metadata/1.root.json")).status_code == 200
    assert (await client.get("/v1/repository/metadata/2.root.json")).status_code == 200
    assert (await client.get("/v1/repository/metadata/3.root.json")).status_code == 404


async def test_new_online_keys_are_used_as_soon_as_a_root_names_them(client) -> None:
    repository = await sr.init(client)
    before = (await client.get("/v1/repository/online-keys")).json()
    after = (await client.post("/v1/repository/online-keys")).json()
    assert before["snapshot"]["keyid"] != after["snapshot"]["keyid"]
    assert (await client.get("/v1/repository/online-keys")).json() == after
    root = repository.next_root()
    for role in ("snapshot", "timestamp"):
        data = dict(after[role])
        root.signed.revoke_key(before[role]["keyid"], role)
        root.signed.add_key(SSlibKey.from_dict(data.pop("keyid"), data), role)
    assert (await sr.put(client, "root", sr.signed(root, repository.root_keys))).status_code == 200
    for file, role in (("timestamp.json", "timestamp"), ("2.snapshot.json", "snapshot")):
        metadata = await _metadata(client, file)
        root.signed.verify_delegate(role, metadata.signed_bytes, metadata.signatures)


async def test_a_revoked_targets_key_takes_effect_before_targets_is_signed_again(client) -> None:
    repository = await sr.init(client)
    root = repository.next_root()
    root.signed.revoke_key(repository.targets_key.public_key.keyid, "targets")
    root.signed.add_key(CryptoSigner.generate_ed25519().public_key, "targets")
    assert (await sr.put(client, "root", sr.signed(root, repository.root_keys))).status_code == 200
    targets = repository.next_targets()
    answer = await sr.put(client, "targets", sr.signed(targets, [repository.targets_key]))
    assert answer.status_code == 403


async def test_snapshot_and_timestamp_are_signed_again_before_they_expire(client, services) -> None:
    await sr.init(client)
    now = time.time()
    assert not await services.repository.renew(now + 60)
    assert await services.repository.renew(now + 3700)
    timestamp = (await _metadata(client, "timestamp.json")).signed
    assert (timestamp.version, timestamp.snapshot_meta.version) == (2, 1)
    assert await services.repository.renew(now + 3 * 86400)
    timestamp = (await _metadata(client, "timestamp.json")).signed
    assert (timestamp.version, timestamp.snapshot_meta.version) == (3, 2)
    assert timestamp.expires.timestamp() > now + 3.9 * 86400
    for number in range(30):
        await services.repository.renew(now + (4 + number) * 86400)
    assert (await client.get("/v1/repository/metadata/2.snapshot.json")).status_code == 200
    snapshots = [number for number in range(1, 40) if await services.repository.file("timestamp", number)]
    assert len(snapshots) <= 40


async def test_metadata_of_a_write_that_failed_is_not_remembered(client, services) -> None:
    repository = sr.SignedRepository()
    repository.make((await client.get("/v1/repository/online-keys")).json())
    body = repository.init_body()
    body["delegated"] = [{"signatures": [], "signed": body["targets"]["signed"]}]
    assert (await client.post("/v1/repository/init", json=body)).status_code == 400
    await sr.init(client)
    stored = await _metadata(client, "1.root.json")
    assert stored.signed != repository.root.signed


async def test_files_that_are_none_are_not_found(client) -> None:
    await sr.init(client)
    for file in ("root.json", "1.timestamp.json", "0.root.json", "9.targets.json", "..%2f1.root.json", "x"):
        assert (await client.get(f"/v1/repository/metadata/{file}")).status_code in {404, 405}, file
    for file in ("a", "0" * 64 + ".1.json", "../1.json"):
        assert (await client.get(f"/v1/repository/targets/models/kws/{file}")).status_code == 404, file


async def test_who_may_write_what(client) -> None:
    repository = await sr.init(client)
    operator = (await client.post("/v1/tokens", json={"name": "o", "role": "operator"})).json()["token"]
    viewer = (await client.post("/v1/tokens", json={"name": "v", "role": "viewer"})).json()["token"]
    as_operator, as_viewer = ({"Authorization": f"Bearer {token}"} for token in (operator, viewer))
    assert (await sr.put(client, "speech", repository.next_family(), headers=as_viewer)).status_code == 403
    assert (await sr.put(client, "speech", repository.next_family(), headers=as_operator)).status_code == 200
    targets = sr.signed(repository.next_targets(), [repository.targets_key])
    assert (await sr.put(client, "targets", targets, headers=as_operator)).status_code == 403
    assert (await client.post("/v1/repository/online-keys", headers=as_operator)).status_code == 403
    assert (await client.get("/v1/repository/online-keys", headers=as_viewer)).status_code == 200


async def test_the_server_says_which_roles_need_a_signature_soon(client) -> None:
    repository = await sr.init(client)
    assert (await client.get("/v1/server")).json()["expiring"] == []
    family = repository.next_family()
    family.signed.expires = datetime.now(UTC).replace(microsecond=0) + timedelta(days=13)
    await sr.put(client, "speech", sr.signed(family, [repository.family_key]))
    assert [one["role"] for one in (await client.get("/v1/server")).json()["expiring"]] == ["speech"]
