"""Streams: whatever is sent, in whichever order and however often, each window counts once."""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass, field

from edgeml_devices.server.telemetry import streams
from edgeml_devices.server.telemetry.store import Verdict
from edgeml_devices.server.telemetry.streams import Gap, Stream, Window, receive
from hypothesis import given
from hypothesis import strategies as st

STORED, DUPLICATE, FORK = Verdict.STORED, Verdict.DUPLICATE, Verdict.FORK


def link(number: int, card: str = "") -> str:
    return hashlib.sha256(f"{card}{number}".encode()).hexdigest()[:16]


def windows(first: int, last: int, card: str = "") -> list[Window]:
    """One window each, in a chain."""
    return [
        Window(number, number, link(number, card), link(number - 1, card) if number else "", number * 60)
        for number in range(first, last + 1)
    ]


def test_the_next_window_is_stored() -> None:
    found = receive(Stream(), windows(0, 2))
    assert found.verdicts == (STORED,) * 3
    assert (found.stream.hi, found.stream.gaps, found.acked_through) == (2, (), 2)


def test_a_batch_whose_answer_was_lost_is_acknowledged_and_not_stored_again() -> None:
    stored = receive(Stream(), windows(0, 4)).stream
    again = receive(stored, windows(0, 4))
    assert again.verdicts == (DUPLICATE,) * 5
    assert (again.stream, again.acked_through) == (stored, 4)


def test_a_batch_may_come_again_with_more_after_it() -> None:
    stored = receive(Stream(), windows(0, 4)).stream
    assert receive(stored, windows(0, 7)).verdicts == (DUPLICATE,) * 5 + (STORED,) * 3


def test_and_again_if_that_answer_was_lost_too() -> None:
    stored = receive(Stream(), windows(0, 4)).stream
    stored = receive(stored, windows(0, 7)).stream
    assert receive(stored, windows(0, 9)).verdicts == (DUPLICATE,) * 8 + (STORED,) * 2


def test_a_smaller_part_of_a_batch_may_come_again_before_the_whole() -> None:
    stored = receive(Stream(), windows(0, 9)).stream
    stored = receive(stored, windows(0, 4)).stream
    assert receive(stored, windows(0, 9)).verdicts == (DUPLICATE,) * 10


def test_what_came_a_few_requests_ago_is_known_and_links_of_long_ago_are_not_kept() -> None:
    stream = Stream()
    for number in range(100):
        stream = receive(stream, windows(number, number)).stream
    assert receive(stream, windows(85, 99)).verdicts == (DUPLICATE,) * 15
    assert receive(stream, windows(84, 84)).verdicts == (DUPLICATE,)
    assert receive(stream, windows(83, 83)).verdicts == (FORK,)
    assert len(streams.to_bytes(stream)) < 300
    stream = receive(stream, windows(100, 163)).stream
    assert receive(stream, windows(100, 163)).verdicts == (DUPLICATE,) * 64
    assert len(stream.recent) == 64


def test_a_device_that_lost_what_it_knew_of_its_last_windows_is_told_what_is_stored() -> None:
    stream = Stream()
    for number in range(40):
        stream = receive(stream, windows(number, number)).stream
    anew = Window(40, 40, link(40, "anew"), link(38), 0)  # 39 could not be read any more
    found = receive(stream, [*windows(38, 38), anew])
    assert found.verdicts == (FORK,) * 2
    assert found.acked_through == 38


def test_numbers_that_are_passed_over_are_a_gap() -> None:
    found = receive(receive(Stream(), windows(0, 1)).stream, windows(5, 5))
    assert found.verdicts == (STORED,)
    assert found.stream.gaps == (Gap(2, 4, 300),)
    assert streams.shown_gaps(found.stream) == ((2, 4),)


def test_a_gap_is_filled_once() -> None:
    stream = receive(receive(Stream(), windows(0, 1)).stream, windows(5, 5)).stream
    found = receive(stream, windows(3, 3))
    assert found.verdicts == (STORED,)
    assert found.stream.gaps == (Gap(2, 2, 300), Gap(4, 4, 300))
    assert receive(found.stream, windows(3, 3)).verdicts == (DUPLICATE,)


def test_a_range_that_is_known_in_part_is_a_fork() -> None:
    stream = receive(receive(Stream(), windows(0, 1)).stream, windows(5, 5)).stream
    assert receive(stream, [Window(1, 3, link(3), link(0), 0)]).verdicts == (FORK,)
    assert receive(stream, [Window(4, 7, link(7), link(3), 0)]).verdicts == (FORK,)


def test_a_window_that_does_not_follow_the_one_before_is_a_fork() -> None:
    stream = receive(Stream(), windows(0, 4)).stream
    assert receive(stream, windows(5, 5, card="clone")).verdicts == (FORK,)


def test_the_same_number_with_another_link_is_a_fork() -> None:
    stream = receive(Stream(), windows(0, 4)).stream
    assert receive(stream, windows(4, 4, card="clone")).verdicts == (FORK,)


def test_an_older_copy_that_lags_behind_is_a_fork_and_not_taken_for_a_repetition() -> None:
    stream = receive(receive(Stream(), windows(0, 4)).stream, windows(5, 9)).stream
    assert receive(stream, windows(2, 2, card="clone")).verdicts == (FORK,)


def test_a_request_that_forks_is_not_stored_and_says_what_of_it_was_stored_before() -> None:
    stream = receive(Stream(), windows(0, 4)).stream
    clone = [*windows(3, 4), Window(5, 5, link(5, "clone"), link(4), 0), *windows(6, 6)]
    found = receive(stream, [*clone[:3], clone[3]._replace(prev=link(9, "x"))])
    assert found.verdicts == (FORK,) * 4
    assert (found.stream, found.acked_through) == (stream, 4)


def test_one_gap_too_many_is_refused_so_that_none_is_forgotten() -> None:
    stream = Stream()
    for number in range(1, 2 * streams.MOST_GAPS + 1, 2):
        stream = receive(stream, windows(number, number)).stream
    assert len(stream.gaps) == streams.MOST_GAPS
    far = stream.hi + 2
    assert receive(stream, windows(far, far)).verdicts == (FORK,)
    assert receive(stream, windows(stream.hi + 1, stream.hi + 1)).verdicts == (STORED,)


@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 4), st.integers(0, 30), st.booleans()), max_size=30)
)
def test_no_number_is_ever_stored_twice_and_gaps_are_what_is_absent(
    sent: list[tuple[int, int, int, bool]],
) -> None:
    stream, stored = Stream(), set[int]()
    for first, length, prev, chained in sent:
        before = stream.link if chained else link(prev)
        request = [Window(first, first + length, link(first + length), before, 0)]
        found = receive(stream, request)
        numbers = set(range(first, first + length + 1))
        match found.verdicts[0]:
            case Verdict.STORED:
                assert not numbers & stored
                stored |= numbers
            case Verdict.DUPLICATE:
                assert numbers <= stored
            case Verdict.FORK:
                assert found.stream == stream
        stream = found.stream
        absent = {number for gap in stream.gaps for number in range(gap.first, gap.last + 1)}
        assert absent == set(range(stream.hi + 1)) - stored
        assert stream == streams.from_bytes(streams.to_bytes(stream))


@dataclass
class Device:
    """Sends as devices do: a batch again until it was answered, numbers lost on the way left out."""

    chance: random.Random
    card: str
    windows: list[Window] = field(default_factory=list)
    acked: int = -1

    def make(self) -> None:
        last = self.windows[-1] if self.windows else Window(-1, -1, "", "", 0)
        first = last.last + 1 + (self.chance.random() < 0.1)
        length = self.chance.choice((0, 0, 0, 3))
        number = first + length
        self.windows.append(Window(first, number, link(number, self.card), last.link, number))

    def batch(self) -> list[Window]:
        unacked = [one for one in self.windows if one.last > self.acked]
        return unacked[: self.chance.randint(1, 8)]


@given(st.integers(0, 2**32))
def test_a_device_whose_answers_get_lost_never_forks_and_has_each_window_stored_once(seed: int) -> None:
    device, stream = Device(random.Random(seed), "a"), Stream()  # noqa: S311 - made-up data
    stored: list[int] = []
    for _ in range(60):
        device.make()
        request = device.batch()
        if not request:
            continue
        found = receive(stream, request)
        stream = found.stream
        assert FORK not in found.verdicts
        stored += [
            one.last for one, verdict in zip(request, found.verdicts, strict=True) if verdict is STORED
        ]
        if device.chance.random() < 0.6:
            device.acked = max(device.acked, found.acked_through)
    assert stored == [one.last for one in device.windows if one.last <= stream.hi]
