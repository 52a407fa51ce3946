"""One device's windows as a server's rules take them, with losses and copies."""

from __future__ import annotations

import json

import pytest
from edgeml_devices.server.telemetry.store import Verdict
from edgeml_devices.server.telemetry.streams import Stream as Known
from edgeml_devices.server.telemetry.streams import Window as Judged
from edgeml_devices.server.telemetry.streams import receive
from edgeml_devices.simulator.connection import Reply
from edgeml_devices.simulator.plan import PlannedDevice, window
from edgeml_devices.simulator.scenario import Group, Telemetry
from edgeml_devices.simulator.stream import Stream, Tally

TELEMETRY = Telemetry(window_s=1.0)


class Rules:
    """What a server knows of streams: its own rules, in memory."""

    def __init__(self) -> None:
        self.known: dict[str, Known] = {}
        self.stored = 0

    @property
    def missing(self) -> int:
        return sum(gap.last - gap.first + 1 for known in self.known.values() for gap in known.gaps)

    def take(self, stream: Stream, *, answers: bool = True) -> None:
        sent, _ = stream.batch(0.0, 0.0)
        reports = [one.report for one in sent]
        request = [Judged(one.seq, one.seq, one.link, one.prev, 0) for one in reports]
        received = receive(self.known.get(stream.epoch, Known()), request)
        self.known[stream.epoch] = received.stream
        self.stored += received.verdicts.count(Verdict.STORED)
        if answers:
            is_fork = Verdict.FORK in received.verdicts
            body = {"acked_through": received.acked_through, "gaps": [], "server_time": 0.0}
            status, body = (409, {"error": body}) if is_fork else (200, body)
            stream.judge(sent, Reply(status, {}, json.dumps(body).encode()))

    def take_all(self, stream: Stream) -> None:
        while stream.waiting:
            self.take(stream)


def a_stream(windows_lost: float, seed: int) -> tuple[Stream, Tally, PlannedDevice]:
    device, tally = PlannedDevice(0, Group(windows_lost=windows_lost), seed, 0.0), Tally()
    return Stream(device, TELEMETRY, "run", tally), tally, device


@pytest.mark.parametrize("seed", range(5))
def test_lost_windows_are_gaps_on_the_server_but_for_those_at_the_end(seed: int) -> None:
    stream, tally, device = a_stream(0.3, seed)
    rules = Rules()
    for second in range(1, 61):
        stream.make(second, 0.0, "m", 1)
        if second % 7 == 0:
            rules.take_all(stream)
    rules.take_all(stream)
    lost = [window(device, TELEMETRY, number).is_lost for number in range(60)]
    at_the_end = lost[::-1].index(False)
    assert (
        (tally.windows, tally.missing)
        == (rules.stored, rules.missing)
        == (60 - sum(lost), sum(lost) - at_the_end)
    )


@pytest.mark.parametrize("seed", range(20))
def test_a_copy_and_its_original_are_counted_once_whoever_comes_first(seed: int) -> None:
    stream, tally, _ = a_stream(0.2, seed)
    rules = Rules()
    stream.make(10, 0.0, "m", 1)
    rules.take(stream, answers=seed % 2 == 0)
    stream.make(20, 0.0, "m", 1)
    both = [stream, stream.copied()]
    for second in range(21, 50):
        for turn, one in enumerate(both):
            one.make(second, 0.0, "m", 1)
            if (second + turn * seed) % 5 == 0 and one.waiting:
                rules.take(one)
    for one in both:
        one.make(50, 0.0, "m", 1)
        rules.take_all(one)
    assert (tally.windows, tally.missing) == (rules.stored, rules.missing)
    assert tally.epochs == len(rules.known) == 2
