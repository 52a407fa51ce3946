"""What a staged install is described with: what is wanted, how far it is, how it ended."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from edgeml.errors import InstallError
from edgeml_devices.messages import Reason, Result, State

GATES: Final = frozenset(
    {
        Reason.PARITY,
        Reason.LATENCY,
        Reason.MEMORY,
        Reason.SELFTEST_CRASH,
        Reason.SELFTEST_TIMEOUT,
        Reason.HEALTH_CHECK,
    }
)
"""Reasons that speak against the release, not against the way to the device."""


class StepError(InstallError):
    """A step of an install failed on the device, for a reason that machines understand."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Plan:
    """How to install, as the operator wants it."""

    variant: str | None = None
    """Take this one; by default what suits the device best."""
    self_test: str | None = None
    """A shell command in the place of ``edgeml selftest``; ``{folder}`` stands for the release's folder."""
    skip_self_test: bool = False
    restart: str | None = None
    """A shell command that makes the application take up what ``current`` leads to."""
    check: str | None = None
    """A shell command that must keep ending with 0 during probation."""
    probation_s: float | None = None
    """By default what the bundle's health policy says."""
    force: bool = False
    """Whoever else has this home: an agent, another deploy."""


@dataclass(frozen=True, slots=True)
class Standing:
    """Where one device stands in a deploy."""

    state: State | None = None
    """``None``: not there yet."""
    doing: str = ""
    sent_bytes: int = 0
    whole_bytes: int = 0
    """Of what is missing on the device."""
    bytes_per_second: float | None = None


Watch = Callable[[Standing], None]
"""Called when a device moves on."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How it ended on one device."""

    url: str
    result: Result
    reason: Reason | None = None
    detail: str = ""
    release: int | None = None
    """The release that was to be installed."""
    variant: str | None = None
    running: int | None = None
    """What ``current`` leads to now, as far as is known."""
    previous: int | None = None
    verified: str = "nothing"
    """What vouches for the release beside its hashes: ``selftest``, ``command``, or ``nothing``."""
    measured: Mapping[str, float] = field(default_factory=dict)
    """As in ``installed.json``."""
    emulated: bool = False
    """The device is emulated: no times are among what was measured."""
    sent_bytes: int = 0
    duration_s: float = 0.0

    @property
    def failed_a_gate(self) -> bool:
        return self.result is not Result.SUCCESSFUL and self.reason in GATES


def outcome_to_json(outcome: Outcome) -> dict[str, Any]:
    """Give an outcome as what ``json`` can write."""
    return {
        "url": outcome.url,
        "result": outcome.result.value,
        "reason": None if outcome.reason is None else outcome.reason.value,
        "detail": outcome.detail,
        "release": outcome.release,
        "variant": outcome.variant,
        "running": outcome.running,
        "previous": outcome.previous,
        "verified": outcome.verified,
        "measured": dict(outcome.measured),
        "emulated": outcome.emulated,
        "sent_bytes": outcome.sent_bytes,
        "duration_s": round(outcome.duration_s, 3),
    }
