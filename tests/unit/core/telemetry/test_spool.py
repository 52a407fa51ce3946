"""The spool keeps what was appended, once, in order, within its budget."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeml.telemetry.encoding import report_from_json
from edgeml.telemetry.merging import add_lost
from edgeml.telemetry.report import MOST_BYTES, Lost, Report, Sample
from edgeml.telemetry.spool import Spool, open_spool
from edgeml.telemetry.spool_state import read_state, write_state
from tests.unit.core.telemetry.reports import window

Opened = Callable[..., Spool]
PLACES = st.integers(0, 2**20)


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opened]:
    """Open the same folder again and again; what was open before is closed."""
    spools: list[Spool] = []

    def again(**options: object) -> Spool:
        if spools:
            spools[-1].close()
        spool = open_spool(tmp_path / "spool", **options)  # type: ignore[arg-type]
        assert spool is not None
        spools.append(spool)
        return spool

    yield again
    if spools:
        spools[-1].close()


def fill(spool: Spool, numbers: range, **options: object) -> None:
    for number in numbers:
        spool.append(window(number, **options), {"ring": number})  # type: ignore[arg-type]


def reports(spool: Spool) -> list[Report]:
    """Give all that is not acknowledged, without sending it."""
    return [report_from_json(one.text) for one in spool._next(10**9, 10**9)]


def calls(several: list[Report]) -> int:
    return sum(model.calls for one in several for model in one.models)


def test_windows_are_numbered_and_linked(opened: Opened) -> None:
    spool = opened()
    fill(spool, range(5))
    found = reports(spool)
    assert [one.seq for one in found] == [0, 1, 2, 3, 4]
    assert found[0].prev == ""
    assert all(other.prev == one.link and len(one.link) == 16 for one, other in pairwise(found))
    assert len({one.link for one in found}) == 5


def test_a_restart_goes_on_where_it_was(opened: Opened) -> None:
    spool = opened()
    epoch = spool.state.epoch
    fill(spool, range(5))
    before = reports(spool)
    spool = opened()
    assert (spool.state.epoch, spool.state.positions) == (epoch, {"ring": 4})
    fill(spool, range(5, 8))
    found = reports(spool)
    assert found[:5] == before
    assert [one.seq for one in found] == list(range(8))
    assert found[5].prev == found[4].link


def test_what_is_acknowledged_is_not_sent_again(opened: Opened) -> None:
    spool = opened()
    fill(spool, range(5))
    assert [one.seq for one in spool.batch(most=3)] == [0, 1, 2]
    spool.acknowledge(1)
    assert [one.seq for one in spool.batch(most=3)] == [2, 3, 4]
    spool.acknowledge(4)
    assert spool.batch() == ()
    spool = opened()
    assert (spool.batch(), spool.last_seq, spool.state.positions) == ((), 4, {"ring": 4})
    fill(spool, range(1))
    assert [one.seq for one in spool.batch()] == [5]


def test_acknowledged_segments_are_removed(opened: Opened, tmp_path: Path) -> None:
    spool = opened(budget_bytes=128 * 1024)
    fill(spool, range(100))
    many = len(list((tmp_path / "spool").glob("*.seg")))
    spool.batch(most=1000)
    spool.acknowledge(98)
    assert len(list((tmp_path / "spool").glob("*.seg"))) == 1 < many
    assert [one.seq for one in spool.batch()] == [99]


def test_a_batch_that_was_handed_over_stays_as_it_was_however_full_the_spool(opened: Opened) -> None:
    spool = opened(budget_bytes=64 * 1024)
    fill(spool, range(40))
    batch = spool.batch(most=30)
    fill(spool, range(40, 400))
    assert spool.size_bytes <= 64 * 1024
    assert spool.batch(most=30) == batch
    spool = opened(budget_bytes=64 * 1024)
    assert spool.batch(most=30) == batch


def test_that_a_batch_may_have_been_sent_is_on_the_disk_before_it_is_given(
    opened: Opened, tmp_path: Path
) -> None:
    spool = opened()
    fill(spool, range(5))
    spool.batch(most=3)
    state = read_state(tmp_path / "spool")
    assert state is not None
    assert state.sent_through == 2


def test_a_full_spool_merges_before_it_gives_anything_up(opened: Opened) -> None:
    spool = opened(budget_bytes=64 * 1024)
    fill(spool, range(600))
    found = reports(spool)
    assert spool.size_bytes <= 64 * 1024
    assert calls(found) == 600 * 60
    assert sum(one.windows for one in found) == 600
    assert found[0].begins == 0
    assert all(other.begins == one.seq + 1 and other.prev == one.link for one, other in pairwise(found))
    assert add_lost(one.lost for one in found).merged == sum(one.windows for one in found if one.windows > 1)
    assert max(one.end_s - one.start_s for one in found) <= 3600


def test_what_cannot_be_merged_is_given_up_oldest_first_and_counted(opened: Opened) -> None:
    spool = opened(budget_bytes=64 * 1024)
    for number in range(400):
        spool.append(window(number, boot_id=f"boot {number}"), {})
    spool = opened(budget_bytes=64 * 1024)
    spool.append(window(400), {})
    found = reports(spool)
    lost = add_lost(one.lost for one in found)
    assert lost.evicted == found[0].seq > 0
    assert len(found) + lost.evicted == 401
    assert spool.state.total_lost.evicted == lost.evicted
    assert [one.seq for one in found] == list(range(found[0].seq, 401))


def test_counters_that_were_not_told_survive_restarts(opened: Opened) -> None:
    spool = opened()
    fill(spool, range(3))
    spool.refuse(1)
    spool = opened()
    spool = opened()
    fill(spool, range(3, 5))
    assert [(one.seq, one.lost.evicted) for one in reports(spool)] == [(0, 0), (2, 0), (3, 1), (4, 0)]


def test_what_a_refused_window_had_to_tell_is_told_by_the_next(opened: Opened) -> None:
    spool = opened()
    spool.append(replace(window(0), lost=Lost(overwritten=5)), {})
    spool.refuse(0)
    fill(spool, range(1))
    assert reports(spool)[0].lost == Lost(overwritten=5, evicted=1)


def test_a_fork_begins_an_epoch_with_what_is_not_acknowledged(opened: Opened) -> None:
    spool = opened(budget_bytes=64 * 1024)
    fill(spool, range(300))
    spool.batch(most=2)
    spool.acknowledge(spool.batch(most=1)[0].seq)
    before, epoch = reports(spool), spool.state.epoch
    spool.begin_epoch()
    after = reports(spool)
    assert spool.state.epoch != epoch
    assert [one.models for one in after] == [one.models for one in before]
    assert (after[0].begins, after[0].prev, after[-1].seq) == (0, "", spool.last_seq)
    assert all(other.begins == one.seq + 1 and other.prev == one.link for one, other in pairwise(after))
    fresh = spool.state.epoch
    spool = opened(budget_bytes=64 * 1024)
    assert (spool.state.epoch, reports(spool)) == (fresh, after)
    fill(spool, range(1))
    assert reports(spool)[-1].seq == after[-1].seq + 1


def test_a_lost_state_begins_an_epoch_and_counts_what_it_cannot_tell_apart(
    opened: Opened, tmp_path: Path
) -> None:
    spool = opened()
    fill(spool, range(5))
    epoch = spool.state.epoch
    spool.close()
    (tmp_path / "spool" / "state.json").write_text("{")
    spool = opened()
    assert spool.state.epoch != epoch
    assert spool.state.positions == {"ring": 4}  # what was read from the rings is not read again
    fill(spool, range(1))
    assert [(one.seq, one.lost.damaged) for one in reports(spool)] == [(0, 5)]


def test_a_torn_tail_is_as_if_it_had_not_been_begun(opened: Opened, tmp_path: Path) -> None:
    spool = opened()
    fill(spool, range(3))
    wanted = reports(spool)[:2]
    spool.close()
    path = next((tmp_path / "spool").glob("*.seg"))
    whole = path.read_bytes()
    last = spool._files.segments[0].frames[-1]
    for size in range(last.offset + 1, len(whole), 7):
        path.write_bytes(whole[:size])
        state = read_state(tmp_path / "spool")
        assert state is not None
        write_state(tmp_path / "spool", replace(state, next_seq=0, link="", positions={}))
        spool = opened()
        assert (reports(spool), spool.last_seq, spool.state.positions) == (wanted, 1, {"ring": 1})
        assert spool.state.lost == Lost()
        spool.close()


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_damage_anywhere_is_skipped_and_counted(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("damage")
    spool = open_spool(folder, budget_bytes=64 * 1024)
    assert spool is not None
    fill(spool, range(40))
    whole = {one.seq: one for one in reports(spool)}
    spool.close()
    paths = sorted(folder.glob("*.seg"))
    path = paths[data.draw(PLACES) % len(paths)]
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(PLACES) % len(content)
        content[place] ^= 1 << data.draw(st.integers(0, 7))
    if data.draw(st.booleans()):
        place = data.draw(PLACES) % len(content)
        content[place : place + 300] = bytes(len(content[place : place + 300]))
    is_changed = bytes(content) != path.read_bytes()
    path.write_bytes(content)
    for _ in range(2):  # a second start counts nothing again
        spool = open_spool(folder, budget_bytes=64 * 1024)
        assert spool is not None
        found = reports(spool)
        assert all(whole[one.seq] == one for one in found)
        assert spool.state.lost.damaged >= 40 - len(found) >= (1 if is_changed else 0)
        assert spool.state.lost.damaged <= 40 - len(found) + 1
        assert spool.last_seq >= found[-1].seq
        spool.close()


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(bit=st.integers(0, 2**20))
def test_a_state_with_one_bit_changed_is_no_state(tmp_path_factory: pytest.TempPathFactory, bit: int) -> None:
    folder = tmp_path_factory.mktemp("state")
    with open_spool(folder) as spool:  # type: ignore[union-attr]
        fill(spool, range(3))
        spool.batch(most=1)
    path = folder / "state.json"
    content = bytearray(path.read_bytes().rstrip())
    content[bit // 8 % len(content)] ^= 1 << bit % 8
    path.write_bytes(content)
    assert read_state(folder) is None


def test_segments_that_were_exchanged_are_sent_in_their_order(opened: Opened, tmp_path: Path) -> None:
    spool = opened(budget_bytes=64 * 1024)
    fill(spool, range(60))
    wanted = reports(spool)
    spool.close()
    one, other = sorted((tmp_path / "spool").glob("*.seg"))[1:3]
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)
    spool = opened(budget_bytes=64 * 1024)
    assert (reports(spool), spool.state.lost) == (wanted, Lost())


def test_of_a_segment_that_is_there_twice_one_counts(opened: Opened, tmp_path: Path) -> None:
    spool = opened(budget_bytes=64 * 1024)
    fill(spool, range(60))
    gone = len(spool._files.segments[2].frames)
    spool.close()
    one, other = sorted((tmp_path / "spool").glob("*.seg"))[1:3]
    other.write_bytes(one.read_bytes())
    for _ in range(2):
        spool = opened(budget_bytes=64 * 1024)
        numbers = [report.seq for report in reports(spool)]
        assert numbers == sorted(set(numbers))
        assert (len(numbers), spool.state.lost) == (60 - gone, Lost(damaged=gone))


def test_a_segment_that_is_gone_is_counted(opened: Opened, tmp_path: Path) -> None:
    spool = opened(budget_bytes=64 * 1024)
    fill(spool, range(60))
    gone = spool._files.segments[1]
    lost = len(gone.frames)
    gone.path.unlink()
    assert len(spool.batch(most=1000)) == 60 - lost
    assert spool.state.lost == Lost(damaged=lost)
    assert opened().state.lost == Lost(damaged=lost)


def test_damage_in_a_running_spool_is_skipped_and_counted(opened: Opened) -> None:
    spool = opened()
    fill(spool, range(5))
    segment = spool._files.segments[0]
    with segment.path.open("r+b") as file:
        file.seek(segment.frames[2].offset + 40)
        file.write(b"????")
    assert [one.seq for one in spool.batch()] == [0, 1, 3, 4]
    fill(spool, range(5, 6))
    assert [(one.seq, one.lost.damaged) for one in reports(spool)][-1] == (5, 1)


def test_a_window_that_no_batch_could_hold_goes_without_raw_inputs_then_without_samples(
    opened: Opened,
) -> None:
    spool = opened()
    raw = tuple(Sample(1.0, "random", raw=os.urandom(30_000)) for _ in range(20))
    long = tuple(Sample(1.0, "random", features=(0.5,) * 4000) for _ in range(20))
    for samples in (raw, long):
        one = window(0)
        spool.append(replace(one, models=(replace(one.models[0], samples=samples),)), {})
    sent = spool.batch()
    assert all(len(one.text) < MOST_BYTES for one in sent)
    kept = [report_from_json(one.text).models[0].samples for one in sent]
    assert kept == [(Sample(1.0, "random"),) * 20, ()]


def test_a_batch_is_no_longer_than_asked(opened: Opened) -> None:
    spool = opened()
    fill(spool, range(30))
    length = len(spool.batch(most=1)[0].text)
    assert len(spool.batch(limit_bytes=10 * length)) < 10
    assert len(spool.batch(limit_bytes=10)) == 1


def test_one_process_owns_a_folder_until_it_ends(tmp_path: Path) -> None:
    with open_spool(tmp_path) as spool:  # type: ignore[union-attr]
        assert open_spool(tmp_path) is None
        assert spool.last_seq == -1
    with open_spool(tmp_path) as spool:  # type: ignore[union-attr]
        assert spool.last_seq == -1


def test_a_forked_child_does_not_keep_the_folder(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    done = context.Event()
    spool = open_spool(tmp_path)
    assert spool is not None
    child = context.Process(target=done.wait)
    child.start()
    try:
        spool.close()
        again = open_spool(tmp_path)
        assert again is not None
        again.close()
    finally:
        done.set()
        child.join()
