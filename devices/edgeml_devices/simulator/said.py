"""What the devices of a run were told and said, and had an answer for: what a server must hold. Pure.

Where a device died between a request and its answer nobody knows whether it was heard: there the truth lies
between two numbers.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from edgeml_devices.messages import ModelStatus, Result
from edgeml_devices.simulator.device import Device


@dataclass(frozen=True, slots=True)
class Bounds:
    """A number that is not less and not more."""

    least: int = 0
    most: int = 0

    def __contains__(self, number: object) -> bool:
        return isinstance(number, int) and self.least <= number <= self.most

    def __add__(self, other: Bounds) -> Bounds:
        return Bounds(self.least + other.least, self.most + other.most)

    def __str__(self) -> str:
        return str(self.least) if self.least == self.most else f"{self.least} to {self.most}"


@dataclass(frozen=True, slots=True)
class Statuses:
    """What one device says of its models, by name."""

    name: str
    answered: Mapping[str, ModelStatus]
    """In the last report that had an answer."""
    sent: Mapping[str, ModelStatus]
    """In the last report at all: the server may have it."""


@dataclass(frozen=True, slots=True)
class Sums:
    """Of telemetry."""

    windows: Bounds = Bounds()
    missing: Bounds = Bounds()
    """Windows whose numbers were passed over."""
    calls: Mapping[int, Bounds] = field(default_factory=dict)
    """By release."""
    errors: Mapping[int, Bounds] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Said:
    """All devices of a run together."""

    joined: Bounds
    statuses: Mapping[str, Statuses]
    """By the device's id."""
    results: Mapping[str, Mapping[Result, Bounds]]
    """By rollout: how it ended on how many devices."""
    telemetry: Sums
    of_those_staying: Sums
    again: int
    """Windows that were sent more than once."""
    epochs: int
    """Further ones, begun since two machines sent as one device."""


def said_by(devices: Sequence[Device], until_s: float) -> Said:
    """Ask the devices of a run that is over.

    Args:
        devices: all of them.
        until_s: when it was over, seconds of the run.
    """
    joined = [device for device in devices if device.id]
    staying = [device for device in joined if device.planned.gone_at(until_s) is None]
    return Said(
        Bounds(len(joined), len(devices)),
        {device.id: Statuses(device.name, device.said, device.sent) for device in joined},
        _results(joined),
        _sums(joined),
        _sums(staying),
        sum(device.stored.again for device in joined),
        sum(device.stored.epochs - 1 for device in joined),
    )


def _results(devices: Iterable[Device]) -> dict[str, dict[Result, Bounds]]:
    found: dict[str, dict[Result, Bounds]] = defaultdict(lambda: dict.fromkeys(Result, Bounds()))
    for device in devices:
        for rollout, result in device.sent_results.items():
            found[rollout][result] += Bounds(int(rollout in device.said_results), 1)
    return dict(found)


def _sums(devices: Iterable[Device]) -> Sums:
    windows = missing = Bounds()
    calls: dict[int, Bounds] = defaultdict(Bounds)
    errors: dict[int, Bounds] = defaultdict(Bounds)
    for device in devices:
        tally = device.stored
        windows += Bounds(tally.windows, tally.windows)
        missing += Bounds(tally.missing, tally.missing)
        for release, number in tally.calls.items():
            calls[release] += Bounds(number, number)
        for release, number in tally.errors.items():
            errors[release] += Bounds(number, number)
        unsure = [one for stream in device.streams for one in stream.waiting if one.sent and not one.stored]
        for made in {id(one): one for one in unsure}.values():
            windows += Bounds(0, 1)
            missing += Bounds(0, made.missing)
            calls[made.release] += Bounds(0, made.holds.calls)
            errors[made.release] += Bounds(0, made.holds.errors)
    return Sums(windows, missing, dict(calls), dict(errors))
