"""What a simulated fleet is like and what happens to it, as a TOML file says; docs/how-to/simulate.md.

Probabilities are from 0 to 1, times of a run are seconds since all devices had joined.
"""

from __future__ import annotations

import math
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Final

from edgeml import typed_json
from edgeml.errors import MessageError, UsageError
from edgeml.toml_file import read_toml, reject_unknown
from edgeml_devices.messages import Reason

RUN_LABEL: Final = "simulation"
"""That all devices of a run have, so that it can be asked about alone."""
Span = tuple[float, float]
"""From and to; a device draws its own value between them."""
MOST_DEVICES: Final = 200_000
MOST_CALLS: Final = 100_000
"""Of one window: each is drawn."""
MOST_WINDOWS: Final = 10_000_000
"""Of all devices in a run: each is drawn, and sent."""
MOST_RELEASES: Final = 2**31 - 1
"""What a server counts up to."""
_STATES: Final = (
    "WAITING_FOR_APPROVAL",
    "DENIED",
    "READY",
    "RUNNING",
    "PAUSED",
    "ABORTING",
    "ABORTED",
    "FINISHED",
)
_PROBABILITIES: Final = (
    "selftest_fails",
    "probation_fails",
    "answers_lost",
    "downloads_cut",
    "windows_lost",
    "offline",
    "clock_wrong",
    "cloned",
    "dies",
)
_SHARES_EXACT_TO: Final = 1e-6


@dataclass(frozen=True, slots=True)
class Group:
    """Devices of one kind, and what goes wrong with them."""

    name: str = "devices"
    share: float = 1.0
    """Of all devices; the shares of all groups are 1 together."""
    labels: Mapping[str, str] = field(default_factory=dict)
    install_s: Span = (0.2, 2.0)
    """How long self-test and probation take, each."""
    selftest_fails: float = 0.0
    """Probability that a release fails its self-test: it changes nothing."""
    selftest_reason: Reason = Reason.PARITY
    probation_fails: float = 0.0
    """Probability that it passes that, but is rolled back after the switch."""
    probation_reason: Reason = Reason.ERROR_RATE
    latency_s: float = 0.0
    """Of the network, added to every request."""
    bytes_per_s: float | None = None
    """How fast downloads are; ``None``: as fast as they come."""
    answers_lost: float = 0.0
    """Probability that the answer to an enrolment, a report or telemetry does not arrive."""
    downloads_cut: float = 0.0
    """Probability that a download breaks off, and goes on by ``Range``."""
    windows_lost: float = 0.0
    """Probability that a window of telemetry is lost on the device, and leaves a gap in the numbers."""
    offline: float = 0.0
    """Probability that a device is without network from one moment to another."""
    offline_from_s: Span = (0.0, 0.0)
    offline_for_s: Span = (0.0, 0.0)
    clock_wrong: float = 0.0
    """Probability that its clock is not set."""
    clock_off_s: Span = (0.0, 0.0)
    """By how much such a clock is wrong; below 0: behind."""
    cloned: float = 0.0
    """Probability that its disk is copied, and the copy sends telemetry, too."""
    cloned_at_s: Span = (0.0, 0.0)
    dies: float = 0.0
    """Probability that it is gone for good from one moment on."""
    dies_at_s: Span = (0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Telemetry:
    """What devices measure."""

    window_s: float = 60.0
    """How long a window is; 0: no telemetry."""
    calls: tuple[int, int] = (20, 60)
    """Inferences in one window, from and to."""
    errors: float = 0.01
    """Share of them that fails."""
    send_every_s: float | None = None
    """How often what waits is sent; ``None``: with each window."""


@dataclass(frozen=True, slots=True)
class Rollout:
    """A release that is rolled out to all simulated devices, once the rollout before has ended or paused."""

    model: str
    release: int | None = None
    """``None``: the newest that the server has."""
    starts_s: float = 0.0
    """Not before."""
    selftest_fails: float = 0.0
    """In addition to a group's own: this release is bad."""
    probation_fails: float = 0.0
    expect: str | None = None
    """The state that it must be in at the end, like ``FINISHED`` or ``PAUSED``; ``None``: any."""
    rules: Mapping[str, Any] = field(default_factory=dict)
    """Further keys of a rollout, like ``waves`` and ``max_failed_share``, see docs/how-to/rollouts.md."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """A whole run."""

    title: str = ""
    devices: int = 50
    duration_s: float = 30.0
    seed: int = 0
    download: bool = True
    """Whether a device fetches a release's files; else it says that it did."""
    telemetry: Telemetry = Telemetry()
    groups: tuple[Group, ...] = (Group(),)
    rollouts: tuple[Rollout, ...] = ()


def read_scenario(path: Path) -> Scenario:
    """Read a scenario file.

    Raises:
        UsageError: it cannot be read, a key is unknown or missing, a value cannot be; names file and key.
    """
    table = read_toml(path, [field.name for field in fields(Scenario)])
    _reject_unknown(Scenario, table, str(path))
    try:
        scenario = typed_json.read(Scenario, table, str(path))
    except MessageError as error:
        raise UsageError(str(error)) from error
    check_scenario(scenario, str(path))
    return scenario


def check_scenario(scenario: Scenario, where: str) -> None:
    """Refuse what cannot be.

    Raises:
        UsageError: names ``where`` and the key.
    """
    for fault in _faults(scenario):
        raise UsageError(f"{where}: {fault}")


def _reject_unknown(kind: Any, table: object, where: str) -> None:
    if not isinstance(table, Mapping):
        return  # its type is refused when it is read
    reject_unknown(table, [field.name for field in fields(kind)], where)
    hints = typing.get_type_hints(kind)
    for name, value in table.items():
        inner = next((one for one in (hints[name], *typing.get_args(hints[name])) if is_dataclass(one)), None)
        for place, one in enumerate(value if isinstance(value, list) else [value]):
            if inner is not None:
                _reject_unknown(
                    inner, one, f"{where}: {name}[{place}]" if value is not one else f"{where}: {name}"
                )


def _faults(scenario: Scenario) -> Iterator[str]:
    if not 1 <= scenario.devices <= MOST_DEVICES:
        yield f"devices: must be 1 to {MOST_DEVICES}, got {scenario.devices}"
    if not (0 < scenario.duration_s < math.inf):
        yield f"duration_s: must be above 0, got {scenario.duration_s:g}"
    if not scenario.groups:
        yield "groups: there must be one"
    names = [group.name for group in scenario.groups]
    if twice := next((name for name in names if names.count(name) > 1), None):
        yield f"groups: the name {twice!r} stands twice; names tell groups apart"
    for group in scenario.groups:
        for fault in _group_faults(group):
            yield f"groups, {group.name!r}: {fault}"
    whole = sum(group.share for group in scenario.groups)
    if not abs(whole - 1) <= _SHARES_EXACT_TO:
        yield f"groups: their shares must be 1 together, they are {whole:g}"
    yield from _telemetry_faults(scenario)
    for place, rollout in enumerate(scenario.rollouts):
        for fault in _rollout_faults(rollout):
            yield f"rollouts[{place}]: {fault}"


def _group_faults(group: Group) -> Iterator[str]:
    if RUN_LABEL in group.labels:
        yield f"labels: {RUN_LABEL} is the simulator's to set"
    yield from _span_faults(group)
    for name in (*_PROBABILITIES, "share"):
        if not 0 <= (value := getattr(group, name)) <= 1:
            yield f"{name}: must be 0 to 1, got {value:g}"
    if not 0 <= group.latency_s < math.inf:
        yield f"latency_s: must be 0 or more, got {group.latency_s:g}"
    if group.bytes_per_s is not None and not 0 < group.bytes_per_s < math.inf:
        yield f"bytes_per_s: must be above 0, got {group.bytes_per_s:g}"
    for name in ("answers_lost", "downloads_cut"):
        if getattr(group, name) == 1:
            yield f"{name}: with 1 nothing ever comes to an end; take 0.9"


def _span_faults(group: Group) -> Iterator[str]:
    for name in ("install_s", "offline_from_s", "offline_for_s", "cloned_at_s", "dies_at_s"):
        low, high = getattr(group, name)
        if not 0 <= low <= high < math.inf:
            yield f"{name}: must be [FROM, TO] with 0 <= FROM <= TO, got [{low:g}, {high:g}]"
    low, high = group.clock_off_s
    if not -math.inf < low <= high < math.inf:
        yield f"clock_off_s: must be [FROM, TO] with FROM <= TO, got [{low:g}, {high:g}]"


def _telemetry_faults(scenario: Scenario) -> Iterator[str]:
    telemetry = scenario.telemetry
    low, high = telemetry.calls
    if not 0 <= low <= high <= MOST_CALLS:
        yield f"telemetry.calls: must be [FROM, TO] with 0 <= FROM <= TO <= {MOST_CALLS}, got [{low}, {high}]"
    if not 0 <= telemetry.window_s < math.inf:
        yield f"telemetry.window_s: must be 0 or more, got {telemetry.window_s:g}"
    elif telemetry.window_s and scenario.devices * scenario.duration_s / telemetry.window_s > MOST_WINDOWS:
        yield f"telemetry.window_s: {telemetry.window_s:g} makes more than {MOST_WINDOWS} windows"
    if not 0 <= telemetry.errors <= 1:
        yield f"telemetry.errors: must be 0 to 1, got {telemetry.errors:g}"
    if telemetry.send_every_s is not None and not 0 < telemetry.send_every_s < math.inf:
        yield f"telemetry.send_every_s: must be above 0, got {telemetry.send_every_s:g}"


def _rollout_faults(rollout: Rollout) -> Iterator[str]:
    if rollout.release is not None and not 1 <= rollout.release <= MOST_RELEASES:
        yield f"release: must be 1 to {MOST_RELEASES}, got {rollout.release}"
    if not 0 <= rollout.starts_s < math.inf:
        yield f"starts_s: must be 0 or more, got {rollout.starts_s:g}"
    if rollout.expect is not None and rollout.expect not in _STATES:
        yield f"expect: must be one of {', '.join(_STATES)}, got {rollout.expect!r}"
    for name in ("selftest_fails", "probation_fails"):
        if not 0 <= (value := getattr(rollout, name)) <= 1:
            yield f"{name}: must be 0 to 1, got {value:g}"
    taken = {"model", "release", "selector", "group"} & set(rollout.rules)
    if taken:
        yield f"rules: {min(taken)} is the simulator's to set"
