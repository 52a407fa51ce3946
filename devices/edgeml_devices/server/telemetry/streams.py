"""Which reports are new: the state of one stream, and what a request does to it. Pure.

A stream is (device, epoch). Its windows are numbered; ``hi`` is the highest number that was stored and
``gaps`` are the numbers below it that never came, so that whatever is neither above ``hi`` nor in a gap was
stored before. That is kept for ever: no report is forgotten and then counted again.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import msgspec

from edgeml.telemetry.report import MOST_REPORTS
from edgeml_devices.server.telemetry.selecting import microseconds
from edgeml_devices.server.telemetry.store import Incoming, Verdict

MOST_GAPS: Final = 1000
"""Of one stream; the report that would open another is refused, and its device begins a new epoch."""
MOST_EPOCHS: Final = 1000
"""Of one device, for ever; whoever begins more is refused as a fork."""
KNOWN: Final = 16
"""Windows whose links are known at least: so many a device may send before it writes down what is stored."""
SHOWN_GAPS: Final = 64
"""In an answer, the newest."""


class Gap(NamedTuple):
    """Numbers that never came."""

    first: int
    last: int
    at_us: int
    """The end of the window after it, µs since 1970."""


class Window(NamedTuple):
    """What of a report says where it belongs."""

    first: int
    last: int
    link: str
    prev: str
    at_us: int


@dataclass(frozen=True, slots=True)
class Stream:
    """What is known of a stream."""

    hi: int = -1
    link: str = ""
    """Of the window ``hi``."""
    gaps: tuple[Gap, ...] = ()
    recent: tuple[tuple[int, str], ...] = ()
    """Number and link of what came last, all of the last request: it may come again if its answer was lost,
    or the device what it knew of it."""


@dataclass(frozen=True, slots=True)
class Received:
    """What a request does to a stream."""

    stream: Stream
    """After it."""
    verdicts: tuple[Verdict, ...]
    acked_through: int
    """The device may forget windows up to here. Below ``stream.hi`` where the request forks: what of it was
    stored before."""


def window_of(one: Incoming) -> Window:
    """Give what decides whether a report is new."""
    report = one.report
    return Window(report.begins, report.seq, report.link, report.prev, microseconds(one.at))


def identity_of(one: Incoming) -> tuple[int, int, int, int]:
    """Give what no other row of a stream has: µs of its end, last number, first number, link."""
    report = one.report
    return microseconds(one.at), report.seq, report.begins, link_number(report.link)


def link_number(link: str) -> int:
    """Give a link as databases keep it: a signed number of 64 bits."""
    number = int(link, 16)
    return number - (1 << 64) if number >> 63 else number


def doubtful(stream: Stream, request: Sequence[Window]) -> list[int]:
    """Give the places in a request of what may have been stored before the links that are known.

    A copy of a device, or one from an older back-up, sends again what the first sent long ago; whoever has
    the rows can tell that from what only the copy has.
    """
    late = [(place, one) for place, one in enumerate(request) if one.last <= stream.hi]
    known = dict(stream.recent) if late else {}
    return [
        place
        for place, one in late
        if known.get(one.last) != one.link
        and not any(gap.first <= one.last and one.first <= gap.last for gap in stream.gaps)
    ]


def receive(stream: Stream, request: Sequence[Window], stored: Collection[int] = ()) -> Received:
    """Judge the reports of one request, in their order. If one of them forks, none is stored.

    Args:
        stream: before the request.
        request: its reports.
        stored: places of the doubtful ones whose rows are there.
    """
    if (after := _in_line(stream, request)) is not None:
        return Received(after, (Verdict.STORED,) * len(request), after.hi)
    after, verdicts = stream, []
    before = dict(stream.recent) | {request[place].last: request[place].link for place in stored}
    known = dict(before)
    seen: list[tuple[int, str]] = []
    proven = -1
    for window in request:
        verdict, after = _place(after, window, known)
        if verdict is Verdict.FORK:
            return Received(stream, (Verdict.FORK,) * len(request), proven)
        if verdict is Verdict.DUPLICATE and window.last in before:
            proven = max(proven, window.last)
        known[window.last] = window.link
        seen.append((window.last, window.link))
        verdicts.append(verdict)
    if Verdict.STORED in verdicts:
        newest = tuple(dict(seen).items())[-MOST_REPORTS:]
        older = tuple(one for one in stream.recent if one not in newest)
        after = Stream(after.hi, after.link, after.gaps, _recent(older, newest))
    return Received(after, tuple(verdicts), after.hi)


def _in_line(stream: Stream, request: Sequence[Window]) -> Stream | None:
    """Give the stream after what nearly every request is: the windows after its last, without a gap."""
    hi, link = stream.hi, stream.link
    for window in request:
        if window.first != hi + 1 or window.prev != link:
            return None
        hi, link = window.last, window.link
    newest = tuple((one.last, one.link) for one in request[-MOST_REPORTS:])
    return Stream(hi, link, stream.gaps, _recent(stream.recent, newest))


def _recent(
    older: tuple[tuple[int, str], ...], newest: tuple[tuple[int, str], ...]
) -> tuple[tuple[int, str], ...]:
    return (*older, *newest)[-max(KNOWN, len(newest)) :]


def refused(request: Sequence[Window]) -> Received:
    """Give what a request does to a stream that a device may not begin any more: nothing."""
    return Received(Stream(), (Verdict.FORK,) * len(request), -1)


def _place(stream: Stream, window: Window, known: dict[int, str]) -> tuple[Verdict, Stream]:
    first, last, link, prev, at_us = window
    if first > stream.hi:
        gaps = stream.gaps
        if first == stream.hi + 1:
            if prev != stream.link:
                return Verdict.FORK, stream
        else:
            gaps = (*gaps, Gap(stream.hi + 1, first - 1, at_us))
            if len(gaps) > MOST_GAPS:
                return Verdict.FORK, stream
        return Verdict.STORED, Stream(last, link, gaps, stream.recent)
    for place, gap in enumerate(stream.gaps):
        if gap.first <= first and last <= gap.last:
            left = _without(gap, first, last)
            gaps = (*stream.gaps[:place], *left, *stream.gaps[place + 1 :])
            return Verdict.STORED, Stream(stream.hi, stream.link, gaps, stream.recent)
        if gap.first <= last and first <= gap.last:
            return Verdict.FORK, stream
    # what has neither a known link nor a row cannot be told from what an older copy of the device sends
    same = last <= stream.hi and known.get(last) == link
    return (Verdict.DUPLICATE if same else Verdict.FORK), stream


def _without(gap: Gap, first: int, last: int) -> list[Gap]:
    left = []
    if gap.first < first:
        left.append(Gap(gap.first, first - 1, gap.at_us))
    if last < gap.last:
        left.append(Gap(last + 1, gap.last, gap.at_us))
    return left


def shown_gaps(stream: Stream) -> tuple[tuple[int, int], ...]:
    """Give the newest gaps, for an answer."""
    return tuple((gap.first, gap.last) for gap in stream.gaps[-SHOWN_GAPS:])


# --- as it is kept

_State = tuple[int, str, tuple[Gap, ...], tuple[int, ...], bytes]
_DECODER: Final = msgspec.msgpack.Decoder(_State)
_ENCODER: Final = msgspec.msgpack.Encoder()
_LINK: Final = 16
"""Hexadecimal digits."""


def to_bytes(stream: Stream) -> bytes:
    """Pack for a database; links must be hexadecimal."""
    numbers = [number for number, _ in stream.recent]
    links = bytes.fromhex("".join([link for _, link in stream.recent]))
    return _ENCODER.encode((stream.hi, stream.link, stream.gaps, numbers, links))


def from_bytes(packed: bytes) -> Stream:
    """Unpack what :func:`to_bytes` made."""
    hi, link, gaps, numbers, packed_links = _DECODER.decode(packed)
    digits = packed_links.hex()
    links = [digits[place : place + _LINK] for place in range(0, len(digits), _LINK)]
    return Stream(hi, link, gaps, tuple(zip(numbers, links, strict=True)))
