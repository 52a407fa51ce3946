"""Whether a device that waits may be taken now: a pure function of what else is asked of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from edgeml_devices.server.rollouts.policy import UNDER_WAY, DeviceState, RolloutState

MOST_ATTEMPTS: Final = 1_000_000
"""A device that speaks of so many has miscounted, and reports of more are refused."""
Rank = tuple[int, float, str]
"""Priority, creation, id: the higher wins."""


@dataclass(frozen=True, slots=True)
class Other:
    """The rollout whose assignment is there."""

    rank: Rank
    state: RolloutState
    device_state: DeviceState | None
    """Where the device stands in it."""


@dataclass(frozen=True, slots=True)
class There:
    """The assignment that is there; also what an abort gives back."""

    release: int | None
    attempt: int
    hold: bool
    on_abort: str
    rollout: str | None
    changed_at: float
    open_until: float | None = None


@dataclass(frozen=True, slots=True)
class Waiting:
    """A device that waits for its place."""

    device_id: str
    facts: Mapping[str, Any] | None = None
    retired: bool = False
    penalty_until: float | None = None
    running: int | None = None
    there: There | None = None
    other: Other | None = None
    unfit: str = ""
    """Why no variant fits."""
    site: str = ""
    tried: int = 0
    """The highest attempt at this release that anyone asked of the device, or that it spoke of."""


@dataclass(frozen=True, slots=True)
class Skip:
    """The device takes no part, and why."""

    reason: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Take:
    """The device is to be assigned."""

    attempt: int


def claim(  # noqa: C901, PLR0911 - one for each rule
    device: Waiting, *, rollout_id: str, rank: Rank, release: int, started_at: float, now: float
) -> Take | Skip | None:
    """Decide on one device; ``None``: it has to wait for a rollout that goes first."""
    if device.retired:
        return Skip("retired")
    if device.penalty_until is not None and device.penalty_until > now:
        return Skip("penalty_box", f"failed too often, left alone until {int(device.penalty_until)}")
    there = device.there
    if device.running == release and (there is None or there.release == release):
        return Skip("already_running")
    if there is not None and there.rollout is None and there.changed_at > started_at:
        return Skip("by_hand", "assigned by hand after the rollout began")
    if there is not None and there.rollout not in {None, rollout_id} and device.other is not None:
        other = device.other
        if other.rank > rank:
            if other.device_state is DeviceState.SUCCEEDED:
                return Skip("superseded", f"runs what {there.rollout} brought")
            if other.state is RolloutState.RUNNING and other.device_state in UNDER_WAY:
                return None
    if device.unfit:
        return Skip("incompatible", device.unfit)
    if device.tried >= MOST_ATTEMPTS:
        return Skip("attempts", f"speaks of attempt {device.tried}; no further one can be made")
    return Take(device.tried + 1)
