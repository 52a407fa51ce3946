"""The network between agent and server fails in each way it has: nothing is lost, little comes twice."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from edgeml_devices.agent import machine
from edgeml_devices.agent.blobs import BlobStore
from edgeml_devices.agent.client import ServerClient, ServerSource
from edgeml_devices.agent.deployment import Deployment, Wish
from edgeml_devices.agent.failures import StepFailedError, UnreachableError
from edgeml_devices.agent.fetch import Fetcher, Limits
from edgeml_devices.agent.home import Home
from edgeml_devices.agent.origins import SignedOrigin
from edgeml_devices.agent.trust import Trust
from edgeml_devices.messages import Assignment, Reason, Result
from tuf.api.exceptions import DownloadError

from edgeml.manifest import FileEntry
from edgeml.testing.networks import BadNetwork, Fault, http_answer
from tests.faults.killed_machine import World, running
from tests.integration.agent.fixture_server import Fleet, serving
from tests.integration.agent.processes import Device
from tests.integration.agent.tiny_repository import sha256_of

QUICK = Limits(attempts=8, first_wait_s=0.01)
GOOD = ["ACCEPTED", "FETCHING", "STAGED", "SELFTEST", "SWITCHING", "PROBATION", "COMMITTED"]
PORTAL = http_answer("200 OK", b"<html>Welcome to the hotel's network</html>" * 500, Content_Type="text/html")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


@pytest.fixture
def fleet(world: World) -> Iterator[Fleet]:
    with serving(world.repository.folder) as (fleet, url):
        fleet.tokens |= {"token": "device-1"}
        with BadNetwork(url) as proxy:
            fleet.proxy = proxy  # type: ignore[attr-defined]
            yield fleet


@pytest.fixture
def proxy(fleet: Fleet) -> BadNetwork:
    return fleet.proxy  # type: ignore[attr-defined,no-any-return]


@pytest.fixture
def blob(fleet: Fleet) -> tuple[FileEntry, bytes]:
    """A blob of a megabyte, on the server."""
    content = random.Random(1).randbytes(1_000_000)  # noqa: S311 - no secret
    sha256 = sha256_of(content)
    (fleet.folder / "blobs" / "sha256" / sha256).write_bytes(content)
    return FileEntry("weights.bin", len(content), sha256), content


def fetcher(store: BlobStore, limits: Limits = QUICK) -> Fetcher:
    return Fetcher(store, limits, lambda: None, time.sleep)


def source(proxy: BadNetwork) -> ServerSource:
    return ServerSource(ServerClient(proxy.url, "token"))


@pytest.fixture(autouse=True)
def direct(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


# --- one file


def test_cut_at_any_byte_it_goes_on_from_there(
    proxy: BadNetwork, blob: tuple[FileEntry, bytes], tmp_path: Path
) -> None:
    draw = random.Random(2)  # noqa: S311 - no secret
    proxy.expect(Fault(cut_after_bytes=draw.randrange(300, 120_000)) for _ in range(25))
    store = BlobStore(tmp_path)
    fetcher(store).fetch(source(proxy), blob[0])
    assert store.path(blob[0].sha256).read_bytes() == blob[1]
    headers = 400 * proxy.connections
    assert proxy.connections > 10
    assert proxy.passed_bytes - headers <= 1.01 * len(blob[1])


@pytest.mark.parametrize(
    "answer",
    [
        http_answer("429 Too Many Requests", Retry_After="0"),
        http_answer("503 Service Unavailable", Retry_After="0"),
        http_answer("502 Bad Gateway", b"<html>"),
        http_answer("401 Unauthorized", b'{"error": {"type": "Auth", "message": "no"}}'),
        http_answer("404 Not Found"),
        b"\x00\xff garbage \r\n\r\n" * 20,
        b"",
        PORTAL,
        http_answer("206 Partial Content", b"x" * 1000, Content_Range="bytes 0-999/1000"),
        http_answer("200 OK", b"x" * 1_000_000, ETag='"another"'),
    ],
    ids=["429", "503", "502", "401", "404", "garbage", "nothing", "portal", "other-range", "other-etag"],
)
def test_another_answer_in_between_costs_nothing_of_what_came(
    proxy: BadNetwork, blob: tuple[FileEntry, bytes], tmp_path: Path, answer: bytes
) -> None:
    cut = Fault(cut_after_bytes=400_000)
    proxy.expect([cut, Fault(answer=answer), Fault(answer=answer), cut, Fault(answer=answer)])
    store = BlobStore(tmp_path)
    fetcher(store).fetch(source(proxy), blob[0])
    assert store.path(blob[0].sha256).read_bytes() == blob[1]
    assert proxy.passed_bytes - 400 * proxy.connections <= 1.01 * len(blob[1])


@pytest.mark.parametrize("length", ["abc", "-1", "9" * 5000])
def test_a_length_that_is_no_number_is_a_failure_of_the_network(
    proxy: BadNetwork, blob: tuple[FileEntry, bytes], tmp_path: Path, length: str
) -> None:
    proxy.always = Fault(answer=f"HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n".encode())
    with pytest.raises(StepFailedError) as error:
        fetcher(BlobStore(tmp_path), Limits(2, first_wait_s=0.01)).fetch(source(proxy), blob[0])
    assert error.value.reason is Reason.NETWORK


def test_an_answer_that_trickles_is_given_up(proxy: BadNetwork, fleet: Fleet) -> None:
    """Metadata, too; a blob has a slowest rate of its own."""
    for number in range(200):
        fleet.assign(f"model-{number}", 1)
    (fleet.folder / "metadata" / "99.root.json").write_bytes(b" " * 20_000)
    proxy.always = Fault(bytes_per_s=2000)
    client = ServerClient(proxy.url, "token", answer_s=0.3)
    with pytest.raises(UnreachableError, match="not whole within"):
        client.poll(None, 0.0)
    with pytest.raises(DownloadError, match="not whole within"):
        list(ServerSource(client).metadata("99.root.json"))


def test_nothing_new_to_a_poll_that_knows_nothing_is_no_answer(proxy: BadNetwork) -> None:
    proxy.always = Fault(answer=b"HTTP/1.1 304 Not Modified\r\nConnection: close\r\n\r\n")
    with pytest.raises(UnreachableError, match="304"):
        ServerClient(proxy.url, "token").poll(None, 0.0)


def test_wrong_bytes_are_not_kept(proxy: BadNetwork, blob: tuple[FileEntry, bytes], tmp_path: Path) -> None:
    proxy.expect([Fault(reorder=True)])
    store = BlobStore(tmp_path)
    fetcher(store).fetch(source(proxy), blob[0])
    assert store.path(blob[0].sha256).read_bytes() == blob[1]
    assert proxy.passed_bytes > 1.9 * len(blob[1])


def test_it_gives_up_after_its_attempts_with_the_reason(
    proxy: BadNetwork, blob: tuple[FileEntry, bytes], tmp_path: Path
) -> None:
    proxy.always = Fault(answer=http_answer("503 Service Unavailable"))
    with pytest.raises(StepFailedError, match="HTTP 503") as error:
        fetcher(BlobStore(tmp_path), Limits(3, first_wait_s=0.01)).fetch(source(proxy), blob[0])
    assert error.value.reason is Reason.NETWORK
    assert proxy.connections == 3


def test_it_waits_as_long_as_the_server_asks_for(
    proxy: BadNetwork, blob: tuple[FileEntry, bytes], tmp_path: Path
) -> None:
    proxy.expect([Fault(answer=http_answer("429 Too Many Requests", Retry_After="7"))])
    waited: list[float] = []
    Fetcher(BlobStore(tmp_path), QUICK, lambda: None, waited.append).fetch(source(proxy), blob[0])
    assert waited == [7.0]


def test_a_limit_on_bandwidth_is_kept(
    proxy: BadNetwork, blob: tuple[FileEntry, bytes], tmp_path: Path
) -> None:
    began = time.monotonic()
    fetcher(BlobStore(tmp_path), Limits(3, bandwidth_bytes_per_s=2_000_000)).fetch(source(proxy), blob[0])
    assert time.monotonic() - began >= 0.45


# --- a whole deployment


def deployment(world: World, home: Home, proxy: BadNetwork) -> Deployment:
    trust = Trust(home.trust)
    made = world.deployment(home, 2)
    client = ServerClient(proxy.url, "token")
    wish = Wish(Assignment(2), SignedOrigin(trust, ServerSource(client), offline=True))
    made.wish = lambda: wish
    object.__setattr__(made.tools, "limits", QUICK)
    return made


@pytest.mark.parametrize(
    "faults",
    [
        [Fault(cut_after_bytes=one) for one in (1, 17, 200, 900, 3000, 9000, 30_000, 60_000)],
        [Fault(answer=one) for one in (http_answer("503 Busy"), b"garbage\r\n", PORTAL, b"")],
        [Fault(delay_s=0.03)],
        [Fault(bytes_per_s=200_000)],
    ],
    ids=["cuts", "answers", "delay", "throttled"],
)
def test_a_deployment_comes_through(
    world: World, proxy: BadNetwork, tmp_path: Path, faults: list[Fault]
) -> None:
    home = world.new_home(tmp_path / "home")
    proxy.expect(faults)
    made = deployment(world, home, proxy)
    machine.recover(made)
    machine.run(made)
    assert made.record.result is Result.SUCCESSFUL, made.record
    assert running(home) == 2
    assert world.why_unsafe(home) is None


def test_at_a_kilobyte_a_second_it_comes_through(proxy: BadNetwork, fleet: Fleet, tmp_path: Path) -> None:
    content = b"k" * 6000
    (fleet.folder / "blobs" / "sha256" / sha256_of(content)).write_bytes(content)
    proxy.always = Fault(bytes_per_s=1000)
    store, entry = BlobStore(tmp_path), FileEntry("small.bin", len(content), sha256_of(content))
    began = time.monotonic()
    fetcher(store, Limits(1, slowest_bytes_per_s=64)).fetch(source(proxy), entry)
    assert store.is_sound(entry.sha256)
    assert time.monotonic() - began > 4


# --- the agent as a process


def test_no_event_is_lost_or_told_twice_on_a_bad_network(
    world: World, fleet: Fleet, proxy: BadNetwork, tmp_path: Path
) -> None:
    device = Device(tmp_path / "home", proxy.url)
    device.enrol(world.repository.first_root)
    draw = random.Random(3)  # noqa: S311 - no secret
    proxy.expect(
        draw.choice([Fault(cut_after_bytes=draw.randrange(1, 4000)), Fault(), Fault(delay_s=0.02)])
        for _ in range(40)
    )
    try:
        device.start()
        fleet.assign("times", 1)
        fleet.wait_for_state("times", "COMMITTED", 1)
        proxy.cut()
        fleet.assign("times", 3)
        fleet.wait_for_state("times", "FAILED", 3)
        proxy.cut()
        fleet.assign("times", 2)
        fleet.wait_for_state("times", "COMMITTED", 2)
    finally:
        device.kill()
    assert fleet.states("times") == [*GOOD, *GOOD[:4], "FAILED", *GOOD]


def test_what_happened_without_a_server_is_told_later(
    world: World, fleet: Fleet, proxy: BadNetwork, tmp_path: Path
) -> None:
    device = Device(tmp_path / "home", proxy.url)
    device.enrol(world.repository.first_root)
    try:
        device.start()
        fleet.assign("times", 1)
        fleet.wait_for_state("times", "FETCHING", 1)
        proxy.always = Fault(answer=http_answer("503 Busy"))
        proxy.cut()
        for restarts in (True, False):
            before = proxy.connections
            device.wait(lambda asked=before + 3: proxy.connections >= asked)
            if restarts:
                device.kill()
                device.start()
        proxy.always = None
        fleet.wait_for_state("times", "COMMITTED", 1)
    finally:
        device.kill()
    assert fleet.states("times") == GOOD
