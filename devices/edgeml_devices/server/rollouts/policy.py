"""The rules of one rollout, as an operator writes them; docs/how-to/rollouts.md has every key."""

from __future__ import annotations

import re
import typing
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from enum import StrEnum
from typing import Any, Final, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from edgeml import typed_json
from edgeml.errors import MessageError, UsageError
from edgeml.toml_file import reject_unknown

DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_MOST_ALERTS: Final = 50
_DAY_S: Final = 86_400.0
_CLOCK: Final = re.compile(r"([01]\d|2[0-3]):[0-5]\d")
MOST_WAVES: Final = 100
_MOST: Final = 2**31 - 1
_MOST_RELEASES: Final = 2**63 - 1
"""What the database holds."""


class RolloutState(StrEnum):
    """Where a rollout stands."""

    WAITING_FOR_APPROVAL = "WAITING_FOR_APPROVAL"
    DENIED = "DENIED"
    READY = "READY"
    RUNNING = "RUNNING"
    PAUSED = "PAUSED"
    ABORTING = "ABORTING"
    """Nothing starts; devices before SWITCHING get back what they had, those behind it come to an end."""
    ABORTED = "ABORTED"
    FINISHED = "FINISHED"


ENDED: Final = (RolloutState.DENIED, RolloutState.ABORTED, RolloutState.FINISHED)
ACTIVE: Final = (RolloutState.RUNNING, RolloutState.PAUSED, RolloutState.ABORTING)


class DeviceState(StrEnum):
    """Where one device stands in one rollout."""

    WAITING = "WAITING"
    HELD = "HELD"
    """Assigned, to be fetched and tested; the switch waits for the maintenance window."""
    ASSIGNED = "ASSIGNED"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    SKIPPED = "SKIPPED"
    """Neither success nor failure: it counts in no threshold."""
    CANCELLED = "CANCELLED"


UNDER_WAY: Final = (DeviceState.HELD, DeviceState.ASSIGNED)


@dataclass(frozen=True, slots=True)
class Wave:
    """One of: a share of the group, a number of devices, or those that a selector matches."""

    percent: float | None = None
    """Of the group, together with the waves before."""
    count: int | None = None
    """Devices of this wave alone."""
    selector: str | None = None
    """Devices of the group that match, and no earlier wave's selector; the other waves share the rest."""
    success_threshold: float | None = None
    """In place of the rollout's."""
    soak_s: float | None = None
    """In place of the rollout's."""
    gates: bool = True
    """Whether the health gates are asked before the next wave."""

    def __str__(self) -> str:
        if self.percent is not None:
            return f"up to {self.percent:g} %"
        return f"{self.count} devices" if self.count is not None else str(self.selector)


@dataclass(frozen=True, slots=True)
class Gates:
    """The new release against the old one in the same period. ``None``: not asked."""

    latency_p95_ratio: float | None = None
    """New by old, at most."""
    error_rate_difference: float | None = None
    """New minus old, at most."""
    selftest_failed_share: float | None = None
    """Of the wave's outcomes, at most."""
    alerts: tuple[str, ...] = ()
    """Names of alert rules: none of them may fire for the release."""
    min_calls: int = 100
    """On each side, for each kind of machine; below that, data are missing."""
    timeout_s: float = 3600.0
    """How long a wave waits for data before the rollout pauses."""

    @property
    def compares(self) -> bool:
        """Whether the devices' health is needed."""
        return self.latency_p95_ratio is not None or self.error_rate_difference is not None


@dataclass(frozen=True, slots=True)
class Window:
    """When devices may switch."""

    start: str
    """``HH:MM``, on the clock of the time zone."""
    duration_s: float
    days: tuple[str, ...] = DAYS
    """On which it begins."""


@dataclass(frozen=True, slots=True)
class Budget:
    """How many devices of one site may be under way at once, over all rollouts."""

    group_by: str
    """The label that names a device's site; devices without it are one site together."""
    max_unavailable: int


@dataclass(frozen=True, slots=True)
class Penalty:
    """A device that failed ``failures`` times within ``period_s`` is left alone for ``duration_s``."""

    failures: int = 3
    period_s: float = _DAY_S
    duration_s: float = _DAY_S


@dataclass(frozen=True, slots=True)
class Policy:
    """Which release goes to whom, and by what rules."""

    model: str
    release: int
    group: str | None = None
    selector: str | None = None
    """In place of a group."""
    waves: tuple[Wave, ...] = (Wave(percent=100.0),)
    success_threshold: float = 0.9
    """Share of a wave's devices that have committed, from which the next wave may begin."""
    max_failed_share: float = 0.1
    """Of the outcomes; above it, ``on_error`` happens."""
    min_sample: int = 5
    """Outcomes before the share counts; all of a wave, if it is smaller."""
    max_failed: int | None = None
    """Above this number of failures in one wave, ``on_error`` happens."""
    on_error: Literal["pause", "abort"] = "pause"
    soak_s: float = 0.0
    """How long the success threshold must have held before the next wave."""
    on_abort: Literal["finish", "rollback"] = "finish"
    """What devices that have switched do on abort."""
    gates: Gates = Gates()
    windows: tuple[Window, ...] = ()
    timezone: str = "UTC"
    silent_after_s: float = 3600.0
    """A device under way that was not heard of for so long counts neither way, until it is heard of again."""
    max_concurrent: int | None = None
    """Devices between assignment and outcome; held ones do not count."""
    budget: Budget | None = None
    penalty: Penalty | None = Penalty()
    priority: int = 0
    """Between two rollouts on one device and model the higher wins; among equals the newer."""
    approval: bool = False
    """Another person than the one who created it must approve."""
    open_ended: bool = False
    """Goes on after the last wave, and takes devices that enter the group, until ``next`` ends it."""


def read_policy(data: object) -> Policy:
    """Read and check the rules.

    Raises:
        UsageError: an unknown key, a wrong value, or rules that contradict each other; names the key.
    """
    _reject_unknown(Policy, data, "rollout")
    try:
        policy = typed_json.read(Policy, data, "rollout")
    except MessageError as error:
        raise UsageError(str(error)) from error
    for fault in _faults(policy):
        raise UsageError(f"rollout: {fault}")
    return policy


def write_policy(policy: Policy) -> dict[str, Any]:
    """Give the rules as JSON; what holds its default is left out."""
    return typed_json.write(policy)


def _reject_unknown(kind: Any, data: object, where: str) -> None:
    """Walk through the dataclasses: in what people write, a key that is not known is an error."""
    hints = typing.get_type_hints(kind)
    if not isinstance(data, Mapping):
        return
    reject_unknown(data, [field.name for field in fields(kind)], where)
    for name, value in data.items():
        arguments = (hints[name], *typing.get_args(hints[name]))
        inner = next((one for one in arguments if is_dataclass(one)), None)
        for place in value if isinstance(value, list) else [value]:
            if inner is not None:
                _reject_unknown(inner, place, f"{where}.{name}")


def _faults(policy: Policy) -> typing.Iterator[str]:
    yield from _unstorable(write_policy(policy), "")
    if not policy.model or policy.release < 1:
        yield "model and release must be given; releases count from 1"
    if (policy.group is None) == (policy.selector is None):
        yield "give either group or selector"
    yield from _wave_faults(policy)
    yield from _number_faults(policy)
    yield from _window_faults(policy)


def _unstorable(value: Any, path: str) -> typing.Iterator[str]:
    """Walk through the rules: numbers and texts that no database takes."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _unstorable(inner, f"{path}.{name}" if path else name)
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            yield from _unstorable(inner, f"{path}[{place}]")
    elif isinstance(value, str):
        if "\0" in value or any("\ud800" <= letter <= "\udfff" for letter in value):
            yield f"{path} holds characters that are no text: {value[:60]!a}"
    elif isinstance(value, int):
        most = _MOST_RELEASES if path == "release" else _MOST
        if abs(value) > most:
            yield f"{path} must be at most {most}"


def _number_faults(policy: Policy) -> typing.Iterator[str]:
    for name, share in _shares(policy):
        if share is not None and not 0 <= share <= 1:
            yield f"{name} is a share between 0 and 1, got {share:g}"
    for name, number in _at_least_one(policy):
        if number is not None and number < 1:
            yield f"{name} must be at least 1, got {number}"
    for name, span_s in _spans(policy):
        if not 0 <= span_s <= 366 * _DAY_S:
            yield f"{name} must be between 0 and a year in seconds, got {span_s:g}"
    if policy.max_failed is not None and policy.max_failed < 0:
        yield f"max_failed must be at least 0, got {policy.max_failed}"
    if policy.gates.latency_p95_ratio is not None and not policy.gates.latency_p95_ratio > 0:
        yield "gates.latency_p95_ratio must be above 0"
    if len(policy.gates.alerts) > _MOST_ALERTS:
        yield f"gates.alerts may name {_MOST_ALERTS} rules, got {len(policy.gates.alerts)}"


def _shares(policy: Policy) -> typing.Iterator[tuple[str, float | None]]:
    yield "success_threshold", policy.success_threshold
    yield "max_failed_share", policy.max_failed_share
    yield "gates.selftest_failed_share", policy.gates.selftest_failed_share
    yield "gates.error_rate_difference", policy.gates.error_rate_difference
    for place, wave in _numbered(policy):
        yield f"waves[{place}].success_threshold", wave.success_threshold


def _numbered(policy: Policy) -> list[tuple[int, Wave]]:
    return list(enumerate(policy.waves))


def _at_least_one(policy: Policy) -> typing.Iterator[tuple[str, int | None]]:
    yield "min_sample", policy.min_sample
    yield "max_concurrent", policy.max_concurrent
    yield "gates.min_calls", policy.gates.min_calls
    if policy.budget is not None:
        yield "budget.max_unavailable", policy.budget.max_unavailable
    if policy.penalty is not None:
        yield "penalty.failures", policy.penalty.failures


def _spans(policy: Policy) -> typing.Iterator[tuple[str, float]]:
    yield "soak_s", policy.soak_s
    yield "silent_after_s", policy.silent_after_s
    yield "gates.timeout_s", policy.gates.timeout_s
    for place, wave in _numbered(policy):
        yield f"waves[{place}].soak_s", wave.soak_s or 0.0
    if policy.penalty is not None:
        yield "penalty.period_s", policy.penalty.period_s
        yield "penalty.duration_s", policy.penalty.duration_s


def _wave_faults(policy: Policy) -> typing.Iterator[str]:
    if not 1 <= len(policy.waves) <= MOST_WAVES:
        yield f"there must be 1 to {MOST_WAVES} waves, got {len(policy.waves)}"
    last = 0.0
    for place, wave in _numbered(policy):
        given = [one for one in (wave.percent, wave.count, wave.selector) if one is not None]
        if len(given) != 1:
            yield f"waves[{place}] needs one of percent, count and selector"
        if wave.count is not None and wave.count < 1:
            yield f"waves[{place}].count must be at least 1, got {wave.count}"
        if wave.percent is not None and not last < wave.percent <= 100:  # noqa: PLR2004 - per cent
            yield (
                f"waves[{place}].percent counts the waves before in: it must be above {last:g} and at most "
                f"100, got {wave.percent:g}"
            )
        last = last if wave.percent is None else wave.percent


def _window_faults(policy: Policy) -> typing.Iterator[str]:
    try:
        ZoneInfo(policy.timezone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        yield f"timezone {policy.timezone!r} is not known; write it as in Europe/Berlin"
    for place, window in enumerate(policy.windows):
        if not _CLOCK.fullmatch(window.start):
            yield f"windows[{place}].start must be HH:MM, got {window.start!r}"
        if not 60 <= window.duration_s <= 7 * _DAY_S:  # noqa: PLR2004 - a minute
            yield f"windows[{place}].duration_s must be 60 to 604800, got {window.duration_s:g}"
        unknown = [day for day in window.days if day not in DAYS]
        if unknown or not window.days:
            yield f"windows[{place}].days must be among {', '.join(DAYS)}, got {', '.join(window.days)}"
