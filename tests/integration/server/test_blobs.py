"""Blobs: whole and verified under their name, or not there; uploads and downloads that go on."""

from __future__ import annotations

import asyncio
import hashlib
import os
import resource

import pytest
from edgeml_devices.server.blobs import BlobStore
from edgeml_devices.server.refusals import RefusalError

from tests.integration.server.devices import enrol

pytestmark = pytest.mark.anyio
CONTENT = os.urandom(100_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
PATH = f"/v1/blobs/sha256/{SHA256}"


async def _put(client, start: int, end: int, *, total: int = len(CONTENT), path: str = PATH):
    headers = {"Content-Range": f"bytes {start}-{end - 1}/{total}"}
    return await client.put(path, content=CONTENT[start:end], headers=headers)


async def _ask(client):
    return await client.put(PATH, headers={"Content-Range": f"bytes */{len(CONTENT)}"})


def _files(services) -> list[str]:
    return sorted(path.name for path in services.settings.blobs.glob("*/*"))


async def test_an_upload_in_pieces_becomes_one_blob(client, services) -> None:
    assert (await client.head(PATH)).status_code == 404
    assert "Range" not in (await _ask(client)).headers
    first = await _put(client, 0, 30_000)
    assert (first.status_code, first.headers["Range"]) == (308, "bytes=0-29999")
    assert (await _ask(client)).headers["Range"] == "bytes=0-29999"
    assert (await client.head(PATH)).status_code == 404
    assert (await client.get(PATH)).status_code == 404
    assert (await _put(client, 30_000, len(CONTENT))).status_code == 201
    assert (await client.get(PATH)).content == CONTENT
    assert (await _ask(client)).status_code == 200
    assert (await client.put(PATH, content=b"other")).status_code == 200
    assert _files(services) == [SHA256]


async def test_a_range_is_served_with_the_hash_as_its_etag(client) -> None:
    await _put(client, 0, len(CONTENT))
    device = await enrol(client)
    headers = device.headers | {"Range": "bytes=99990-"}
    answer = await client.get(PATH, headers=headers)
    assert (answer.status_code, answer.content) == (206, CONTENT[99_990:])
    assert answer.headers["Content-Range"] == "bytes 99990-99999/100000"
    assert answer.headers["ETag"] == f'"{SHA256}"'
    other = await client.get(PATH, headers=headers | {"If-Range": '"other"'})
    assert other.status_code == 200
    assert (await client.get(PATH, headers=device.headers | {"Range": "bytes=100000-"})).status_code == 416


async def test_what_is_not_its_hash_never_gets_its_name(client, services) -> None:
    answer = await client.put(PATH, content=b"x" * len(CONTENT))
    assert answer.status_code == 409
    assert "hash" in answer.json()["error"]["message"]
    assert _files(services) == []
    assert (await _put(client, 0, len(CONTENT))).status_code == 201


async def test_a_piece_at_the_wrong_place_is_refused_and_says_the_right_one(client) -> None:
    await _put(client, 0, 10)
    for start in (0, 9, 11):
        answer = await _put(client, start, start + 10)
        assert answer.status_code == 409
        assert "byte 10" in answer.json()["error"]["message"]


async def test_ranges_that_cannot_be_are_refused(client) -> None:
    for text in ("bytes 5-4/10", "bytes 0-10/10", "bytes -1-5/10", "items 0-1/2", "bytes 0-1/*", "bytes */x"):
        answer = await client.put(PATH, content=b"", headers={"Content-Range": text})
        assert answer.status_code == 400, text
    answer = await client.put(PATH, content=b"123", headers={"Content-Range": "bytes 0-1/10"})
    assert answer.status_code == 400


async def test_more_than_was_announced_is_refused(client) -> None:
    async def chunked():
        yield CONTENT + b"more"

    headers = {"Content-Range": f"bytes 0-{len(CONTENT) - 1}/{len(CONTENT)}"}
    assert (await client.put(PATH, content=chunked(), headers=headers)).status_code == 413


async def test_an_empty_file_is_a_blob_too(client) -> None:
    path = f"/v1/blobs/sha256/{hashlib.sha256().hexdigest()}"
    assert (await client.put(path, headers={"Content-Range": "bytes */0"})).status_code == 201
    assert (await client.get(path)).content == b""


async def test_two_who_upload_the_same_blob_at_once_make_it_once(client, services) -> None:
    answers = await asyncio.gather(*(_put(client, 0, len(CONTENT)) for _ in range(4)))
    assert {answer.status_code for answer in answers} <= {200, 201, 409, 503}
    assert 201 in {answer.status_code for answer in answers}  # of all who were let in and found it whole
    assert (await client.get(PATH)).content == CONTENT
    assert _files(services) == [SHA256]


async def test_names_that_are_no_hashes_lead_nowhere(client, services) -> None:
    (services.settings.data / "secret").write_text("x")
    for name in ("..%2f..%2f..%2fsecret", "%2e%2e", "a" * 63, "A" * 64, "g" * 64, "a" * 64 + "%00"):
        for method in ("GET", "HEAD", "PUT"):
            answer = await client.request(method, f"/v1/blobs/sha256/{name}")
            assert answer.status_code in {400, 404, 405}, (method, name)
    assert _files(services) == []


async def test_who_may_load_and_store(client, app) -> None:
    import httpx2

    device = await enrol(client)
    viewer = (await client.post("/v1/tokens", json={"name": "v", "role": "viewer"})).json()["token"]
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://s") as anybody:
        assert (await anybody.get(PATH)).status_code == 401
    for token, expected in ((device.token, 404), (viewer, 404)):
        headers = {"Authorization": f"Bearer {token}"}
        assert (await client.get(PATH, headers=headers)).status_code == expected
        assert (await client.put(PATH, content=CONTENT, headers=headers)).status_code == 403


async def test_a_caller_who_breaks_off_leaves_what_arrived(tmp_path) -> None:
    store = BlobStore(tmp_path / "blobs", 1 << 30)
    store.open()

    async def broken():
        yield CONTENT[:1000]
        raise ConnectionError

    with pytest.raises(ConnectionError):
        await store.append(SHA256, 0, len(CONTENT), broken())
    assert store.arrived_bytes(SHA256) == 1000

    async def rest():
        yield CONTENT[1000:]

    assert await store.append(SHA256, 1000, len(CONTENT), rest())
    assert store.path(SHA256).read_bytes() == CONTENT


async def test_what_is_larger_than_the_disk_or_the_limit_is_refused_before_a_byte(tmp_path) -> None:
    async def nothing():
        raise AssertionError
        yield b""

    store = BlobStore(tmp_path / "blobs", 1 << 62)
    store.open()
    with pytest.raises(RefusalError, match="full") as refused:
        await store.append(SHA256, 0, 1 << 60, nothing())
    assert refused.value.status == 507
    with pytest.raises(RefusalError) as refused:
        await BlobStore(tmp_path / "blobs", 5).append(SHA256, 0, 6, nothing())
    assert refused.value.status == 413
    assert list((tmp_path / "blobs").glob("*/*")) == []


async def test_uploads_that_nobody_goes_on_with_are_removed(tmp_path) -> None:
    store = BlobStore(tmp_path / "blobs", 1 << 30)
    store.open()

    async def some():
        yield b"x"

    await store.append(SHA256, 0, 2, some())
    assert store.remove_stale() == 0
    assert store.remove_stale(now=tmp_path.stat().st_mtime + 8 * 86400) == 1
    assert store.arrived_bytes(SHA256) == 0


async def test_a_disk_that_fills_up_leaves_nothing_half_written(tmp_path) -> None:
    store = BlobStore(tmp_path / "blobs", 1 << 30)
    store.open()

    async def all_of_it():
        yield CONTENT

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(RefusalError, match="full") as refused:
            await store.append(SHA256, 0, len(CONTENT), all_of_it())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert refused.value.status == 507
    assert list((tmp_path / "blobs").glob("*/*")) == []
    assert await store.append(SHA256, 0, len(CONTENT), all_of_it())
