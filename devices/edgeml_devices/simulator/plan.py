"""What each simulated device is going to do, from the scenario and its seed alone. Pure.

Nothing here depends on when things happen: the same scenario and seed give the same devices, the same outcome
of each release on each of them, and the same inferences in each window. Numbers come from hashes of names,
not from one generator, so that no draw moves another.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from edgeml_devices.messages import Reason, Result
from edgeml_devices.simulator.scenario import Group, Rollout, Scenario, Span, Telemetry

_WHOLE: Final = 2.0**64


def draw(seed: int, *names: str | int) -> float:
    """Give a number from 0 to below 1 that belongs to these names."""
    text = "/".join(map(str, (seed, *names)))
    # not all of the 64 bits fit a float: the quotient could round to 1
    return (int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) >> 11) / (_WHOLE / 2048)


def between(span: Span, seed: int, *names: str | int) -> float:
    """Give a number from a span that belongs to these names."""
    return span[0] + (span[1] - span[0]) * draw(seed, *names)


@dataclass(frozen=True, slots=True)
class PlannedDevice:
    """One device, and what befalls it. Times are seconds since all had joined."""

    number: int
    group: Group
    seed: int
    phase_s: float
    """When its first window begins."""
    clock_off_s: float = 0.0
    offline: Span | None = None
    """From and to."""
    cloned_at_s: float | None = None
    dies_at_s: float | None = None

    @property
    def name(self) -> str:
        return f"sim-{self.number:05}"

    def gone_at(self, duration_s: float) -> float | None:
        """Give when it was last heard of, if it is not there at the end of the run."""
        gone = [] if self.dies_at_s is None else [self.dies_at_s]
        if self.offline is not None and self.offline[1] >= duration_s:
            gone.append(self.offline[0])
        soonest = min(gone, default=math.inf)
        return soonest if soonest < duration_s else None


@dataclass(frozen=True, slots=True)
class Window:
    """What one window of a device holds."""

    calls: int
    errors: int
    is_lost: bool = False
    """On the device, before it was sent: nobody but its neighbour's number says that it was there."""


@dataclass(frozen=True, slots=True)
class Foreseen:
    """What the seed alone says of a run that lasts as long as it should."""

    devices: int
    present: int
    """At the end."""
    results: tuple[Mapping[str, int], ...]
    """For each rollout: on how many devices it would end how, if it reached all of them."""
    windows: int
    """Of the devices that stay, copies included, without those that are lost."""
    calls: int
    errors: int
    lost: int
    """Windows. Those that no other follows, and some of copies, leave no trace."""


def plan(scenario: Scenario) -> list[PlannedDevice]:
    """Give all devices."""
    shares, ends = 0.0, []
    for group in scenario.groups:
        shares += group.share
        ends.append(round(shares * scenario.devices))
    ends[-1] = scenario.devices
    return [
        _device(scenario, number, scenario.groups[next(i for i, end in enumerate(ends) if number < end)])
        for number in range(scenario.devices)
    ]


def _device(scenario: Scenario, number: int, group: Group) -> PlannedDevice:
    seed = scenario.seed

    def happens(probability: float, what: str) -> bool:
        return draw(seed, number, what) < probability

    def at(span: Span, what: str) -> float:
        return between(span, seed, number, what)

    offline: Span | None = None
    if happens(group.offline, "offline"):
        begins = at(group.offline_from_s, "offline from")
        offline = begins, begins + at(group.offline_for_s, "offline for")
    return PlannedDevice(
        number,
        group,
        seed,
        phase_s=draw(seed, number, "phase") * scenario.telemetry.window_s,
        clock_off_s=at(group.clock_off_s, "off") if happens(group.clock_wrong, "clock") else 0.0,
        offline=offline,
        cloned_at_s=at(group.cloned_at_s, "cloned at") if happens(group.cloned, "cloned") else None,
        dies_at_s=at(group.dies_at_s, "dies at") if happens(group.dies, "dies") else None,
    )


def outcome(device: PlannedDevice, release: Rollout, place: int) -> tuple[Result, Reason | None]:
    """Give how a release ends on a device.

    Args:
        device: which.
        release: what the scenario says of it.
        place: in the scenario: which number it has on a server says nothing beforehand.
    """
    group, names = device.group, (device.number, release.model, place)

    def fails(own: float, of_release: float, where: str) -> bool:
        return draw(device.seed, *names, where) < 1 - (1 - own) * (1 - of_release)

    if fails(group.selftest_fails, release.selftest_fails, "selftest"):
        return Result.FAILED_NO_STATE_CHANGE, group.selftest_reason
    if fails(group.probation_fails, release.probation_fails, "probation"):
        return Result.FAILED_ROLLBACK_COMPLETE, group.probation_reason
    return Result.SUCCESSFUL, None


def window(device: PlannedDevice, telemetry: Telemetry, number: int, copy: int = 0) -> Window:
    """Give what a window of a device, or of a copy of it, holds."""
    names = (device.number, copy, "window", number)
    low, high = telemetry.calls
    calls = low + int((high - low + 1) * draw(device.seed, *names, "calls"))
    share = telemetry.errors * 2 * draw(device.seed, *names, "errors")
    # a copy loses the same ones: where only one of both had a window, it would fill the other's gap
    is_lost = draw(device.seed, device.number, "lost", number) < device.group.windows_lost
    return Window(calls, min(calls, round(calls * share)), is_lost)


def windows_until(device: PlannedDevice, telemetry: Telemetry, until_s: float) -> int:
    """Give how many windows of a device have ended by a moment."""
    if not telemetry.window_s:
        return 0
    return max(0, math.floor((until_s - device.phase_s) / telemetry.window_s))


def foresee(scenario: Scenario, devices: Sequence[PlannedDevice]) -> Foreseen:
    """Add up what devices that are there at the end will have done."""
    telemetry, until_s = scenario.telemetry, scenario.duration_s
    staying = [one for one in devices if one.gone_at(until_s) is None]
    made = [one for device in staying for one in windows_of(device, telemetry, until_s)]
    windows = [one for one in made if not one.is_lost]
    return Foreseen(
        len(devices),
        len(staying),
        tuple(
            dict(Counter(outcome(device, rollout, place)[0].value for device in devices))
            for place, rollout in enumerate(scenario.rollouts)
        ),
        len(windows),
        sum(one.calls for one in windows),
        sum(one.errors for one in windows),
        len(made) - len(windows),
    )


def windows_of(device: PlannedDevice, telemetry: Telemetry, until_s: float) -> list[Window]:
    """Give all windows of a device by a moment, and of its copy: that begins where the disk was copied."""
    ended = windows_until(device, telemetry, until_s)
    found = [window(device, telemetry, number) for number in range(ended)]
    if device.cloned_at_s is not None:
        first = windows_until(device, telemetry, device.cloned_at_s)
        found += [window(device, telemetry, number, copy=1) for number in range(first, ended)]
    return found
