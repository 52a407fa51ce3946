"""What a device does with each answer of a server, and with none; the server is a real one on a socket."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from edgeml.telemetry.posting import Poster
from edgeml.telemetry.report import CONTENT_MSGPACK, Batch
from edgeml.telemetry.sender import Outcome, Sender
from edgeml.telemetry.spool import Spool, open_spool
from tests.faults.tiny_collector import TOKEN, Answer, Collector, CollectorServer
from tests.unit.core.telemetry.reports import window


@pytest.fixture
def collector() -> Collector:
    return Collector()


@pytest.fixture
def server(collector: Collector) -> Iterator[CollectorServer]:
    with CollectorServer(collector) as server:
        yield server


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    spool = open_spool(tmp_path / "spool")
    assert spool is not None
    yield spool
    spool.close()


class Clock:
    """Seconds since boot, set by hand."""

    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def poster(server: CollectorServer) -> Iterator[Poster]:
    poster = Poster(server.url, TOKEN)
    yield poster
    poster.close()


@pytest.fixture
def sender(spool: Spool, poster: Poster, clock: Clock) -> Sender:
    return Sender(spool, poster, clock=lambda: 1.8e9, since_boot=clock, boot="boot")


REFUSAL = b'{"error": {"type": "bad_request", "message": "it cannot be true"}}'


def fill(spool: Spool, count: int) -> None:
    begins = spool.last_seq + 1
    for number in range(begins, begins + count):
        spool.append(window(number), {"ring": number})


def drain(sender: Sender) -> Outcome:
    """Send until there is nothing to send, or not now."""
    while (outcome := sender.send()) is Outcome.SENT:
        pass
    return outcome


def once(answer: Answer) -> object:
    """Answer so to the first request only."""
    left = [answer]
    return lambda _batch: left.pop() if left else None


def test_all_that_waits_is_sent_and_forgotten(spool: Spool, sender: Sender, collector: Collector) -> None:
    fill(spool, 150)
    assert drain(sender) is Outcome.IDLE
    assert [len(one.reports) for one in collector.batches] == [64, 64, 22]
    assert collector.numbers(spool.state.epoch) == dict.fromkeys(range(150), 1)
    assert collector.content_types == {CONTENT_MSGPACK}
    assert spool.waiting == 0


def test_a_batch_says_when_it_is_sent(
    spool: Spool, sender: Sender, collector: Collector, clock: Clock
) -> None:
    fill(spool, 1)
    clock.now_s = 1234.5
    drain(sender)
    (batch,) = collector.batches
    assert (batch.epoch, batch.boot_id, batch.now_s, batch.at) == (spool.state.epoch, "boot", 1234.5, 1.8e9)


def test_a_lost_answer_is_asked_for_again_with_the_same_windows(
    spool: Spool, sender: Sender, collector: Collector, clock: Clock
) -> None:
    fill(spool, 5)
    answers = [False, True]
    collector.after = lambda _batch: answers.pop(0)
    assert sender.send() is Outcome.LATER
    fill(spool, 300)  # the spool grows meanwhile
    clock.now_s = sender.not_before_s
    assert sender.send() is Outcome.SENT
    assert collector.batches[1].reports[:5] == collector.batches[0].reports
    collector.after = lambda _batch: True
    drain(sender)
    assert collector.numbers(spool.state.epoch) == dict.fromkeys(range(305), 1)


def test_what_waits_for_its_answer_when_the_device_restarts_is_not_stored_twice(
    spool: Spool, sender: Sender, collector: Collector, poster: Poster, tmp_path: Path
) -> None:
    """Acknowledged, and killed before anything else was written."""
    fill(spool, 5)
    for _ in range(3):
        sender.send()
        fill(spool, 2)
    sender.send()
    shutil.copytree(tmp_path / "spool", tmp_path / "as killed")
    with open_spool(tmp_path / "as killed") as again:  # type: ignore[union-attr]
        fill(again, 1)
        assert drain(Sender(again, poster, boot="boot")) is Outcome.IDLE
        assert again.state.epoch == spool.state.epoch
    assert collector.numbers(spool.state.epoch) == dict.fromkeys(range(12), 1)


def test_retry_after_is_obeyed(spool: Spool, sender: Sender, collector: Collector, clock: Clock) -> None:
    fill(spool, 1)
    collector.before = once((503, b"", {"Retry-After": "120"}))  # type: ignore[assignment]
    assert sender.send() is Outcome.LATER
    assert sender.not_before_s >= clock.now_s + 120
    assert sender.send() is Outcome.LATER
    assert len(collector.batches) == 1
    clock.now_s = sender.not_before_s
    assert drain(sender) is Outcome.IDLE


def test_waits_grow_up_to_a_quarter_of_an_hour(
    spool: Spool, sender: Sender, collector: Collector, clock: Clock
) -> None:
    fill(spool, 1)
    collector.before = lambda _batch: (500, b"", {})
    waits = []
    for _ in range(14):
        assert sender.send() is Outcome.LATER
        waits.append(sender.not_before_s - clock.now_s)
        clock.now_s = sender.not_before_s
    assert waits[0] <= 2
    assert 400 < waits[-1] <= 900


def test_a_batch_that_is_too_large_is_halved(spool: Spool, sender: Sender, collector: Collector) -> None:
    fill(spool, 40)
    collector.before = lambda batch: (413, b"", {}) if len(batch.reports) > 7 else None
    assert drain(sender) is Outcome.IDLE
    assert max(len(one.reports) for one in collector.batches[3:]) <= 14
    assert collector.numbers(spool.state.epoch) == dict.fromkeys(range(40), 1)


def test_one_window_that_the_server_refuses_is_given_up_alone(
    spool: Spool, sender: Sender, collector: Collector
) -> None:
    fill(spool, 20)

    def refuse(batch: Batch) -> Answer | None:
        return (400, REFUSAL, {}) if any(one.seq == 11 for one in batch.reports) else None

    collector.before = refuse
    assert drain(sender) is Outcome.IDLE
    fill(spool, 1)
    drain(sender)
    assert sorted(collector.numbers(spool.state.epoch)) == [*range(11), *range(12, 21)]
    assert collector.stored[-1][1].lost.evicted == 1


@pytest.mark.parametrize("status", [401, 410])
def test_a_server_that_does_not_know_the_device_is_left_alone_for_an_hour(
    spool: Spool, sender: Sender, collector: Collector, clock: Clock, status: int
) -> None:
    fill(spool, 1)
    collector.before = lambda _batch: (status, b"", {})
    assert [sender.send(), sender.send()] == [Outcome.STOPPED, Outcome.STOPPED]
    clock.now_s += 3599
    assert sender.send() is Outcome.STOPPED
    assert len(collector.batches) == 1
    collector.before = lambda _batch: None
    clock.now_s += 1
    assert drain(sender) is Outcome.IDLE
    assert spool.waiting == 0


@pytest.mark.parametrize("page", [b"<html>log in</html>", b"{}", b'{"acked_through": -1}'])
def test_a_page_in_the_servers_place_acknowledges_nothing(
    spool: Spool, sender: Sender, collector: Collector, page: bytes
) -> None:
    fill(spool, 3)
    collector.before = once((200, page, {}))  # type: ignore[assignment]
    assert sender.send() is Outcome.LATER
    assert spool.waiting == 3


def test_no_server_is_no_reason_to_lose_anything(
    spool: Spool, server: CollectorServer, sender: Sender
) -> None:
    server.server_close()
    fill(spool, 3)
    assert sender.send() is Outcome.LATER
    assert spool.waiting == 3


@pytest.mark.parametrize("tells_acked", [True, False])
def test_two_copies_of_a_card_are_told_apart_and_nothing_is_stored_twice(
    tmp_path: Path, collector: Collector, poster: Poster, tells_acked: bool
) -> None:
    collector.tells_acked = tells_acked
    with open_spool(tmp_path / "card") as spool:  # type: ignore[union-attr]
        fill(spool, 3)
        drain(Sender(spool, poster))
        fill(spool, 2)  # not sent yet: both copies have these
    shutil.copytree(tmp_path / "card", tmp_path / "copy")
    with open_spool(tmp_path / "card") as first, open_spool(tmp_path / "copy") as second:  # type: ignore[union-attr]
        epoch = first.state.epoch
        for spool, other in ((first, 4), (second, 6)):
            fill(spool, other)
            assert drain(Sender(spool, poster)) is Outcome.IDLE
        assert first.state.epoch == epoch != second.state.epoch
        fill(first, 1)
        fill(second, 1)
        drain(Sender(first, poster))
        drain(Sender(second, poster))
        assert first.state.epoch == epoch
        assert collector.numbers(epoch) == dict.fromkeys(range(10), 1)
        assert max(collector.numbers(second.state.epoch).values()) == 1
        assert len(collector.stored) == (3 + 2 + 4 + 1) + (6 + 1)


def test_a_card_restored_from_an_old_copy_goes_on_in_an_epoch_of_its_own(
    tmp_path: Path, collector: Collector, poster: Poster
) -> None:
    with open_spool(tmp_path / "card") as spool:  # type: ignore[union-attr]
        fill(spool, 3)
        drain(Sender(spool, poster))
    shutil.copytree(tmp_path / "card", tmp_path / "backup")
    with open_spool(tmp_path / "card") as spool:  # type: ignore[union-attr]
        epoch = spool.state.epoch
        for _ in range(10):
            fill(spool, 1)
            drain(Sender(spool, poster))
    with open_spool(tmp_path / "backup") as spool:  # type: ignore[union-attr]
        fill(spool, 4)
        assert drain(Sender(spool, poster)) is Outcome.IDLE
        assert spool.state.epoch != epoch
        assert collector.numbers(spool.state.epoch) == dict.fromkeys(range(4), 1)
    assert collector.numbers(epoch) == dict.fromkeys(range(13), 1)


def test_merged_windows_arrive_whole(tmp_path: Path, collector: Collector, poster: Poster) -> None:
    with open_spool(tmp_path / "small", budget_bytes=64 * 1024) as spool:  # type: ignore[union-attr]
        for number in range(900):
            spool.append(replace(window(number), energy_joules=None), {})
        assert drain(Sender(spool, poster)) is Outcome.IDLE
        assert collector.numbers(spool.state.epoch) == dict.fromkeys(range(900), 1)
    assert collector.calls() == 900 * 60


@pytest.mark.parametrize("lost_bytes", [1, 500, 1000, 3000])
def test_a_device_whose_last_windows_are_damaged_has_none_stored_twice(
    tmp_path: Path, collector: Collector, poster: Poster, lost_bytes: int
) -> None:
    with open_spool(tmp_path / "card") as spool:  # type: ignore[union-attr]
        sender = Sender(spool, poster)
        for _ in range(40):
            fill(spool, 1)
            drain(sender)
        shutil.copytree(tmp_path / "card", tmp_path / "killed")
    segment = next((tmp_path / "killed").glob("*.seg"))
    content = segment.read_bytes()
    segment.write_bytes(content[:-lost_bytes] + b"\xff" * lost_bytes)
    with open_spool(tmp_path / "killed") as again:  # type: ignore[union-attr]
        fill(again, 3)
        assert drain(Sender(again, poster)) is Outcome.IDLE
    found = Counter(report.link for _, report in collector.stored)
    assert set(found.values()) == {1}
    assert len(found) == 43
    assert sum(report.lost.damaged for _, report in collector.stored) >= 1
