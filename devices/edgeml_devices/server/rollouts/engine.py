"""What a rollout does next: pure functions of what is in the database and the time.

One tick of a rollout goes through them in this order: settle what devices reported, judge the waves, then
fill the places that are free. The same view gives the same decisions, whichever process asks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from edgeml_devices.messages import Reason, Result, State
from edgeml_devices.server.rollouts.policy import DeviceState, Policy, Wave

BATCH: Final = 500
"""Devices that one tick moves at most: a transaction stays short."""
ABORT_PATIENCE_S: Final = 900.0
"""How long an abort waits for devices behind SWITCHING to say how they ended."""
SELFTEST_REASONS: Final = (
    Reason.PARITY,
    Reason.LATENCY,
    Reason.MEMORY,
    Reason.SELFTEST_CRASH,
    Reason.SELFTEST_TIMEOUT,
    Reason.ENGINE,
)
SWITCHED: Final = (State.SWITCHING, State.PROBATION, State.COMMITTED, State.ROLLING_BACK)
_EPSILON: Final = 1e-9
"""0.1 × 30 is 3.0000000000000004: a share that is met must not fail by that."""


# --- how a device's part in the rollout ended


@dataclass(frozen=True, slots=True)
class Status:
    """What a device said of the model last, or of the attempt in its history."""

    state: str
    running: int | None
    target: int | None
    attempt: int
    result: str | None = None
    reason: str | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Assigned:
    """The assignment that is there now."""

    rollout: str | None
    release: int | None
    attempt: int


@dataclass(frozen=True, slots=True)
class DeviceView:
    """One device of a rollout that is under way, or has committed."""

    device_id: str
    state: DeviceState
    rollout: str
    release: int
    attempt: int
    retired: bool = False
    silent: bool = False
    """Not heard of for longer than the policy allows."""
    assigned: Assigned | None = None
    status: Status | None = None
    told: Status | None = None
    """The end of this very attempt, from the device's events."""


@dataclass(frozen=True, slots=True)
class Settled:
    """What becomes of a device's row."""

    device_id: str
    state: DeviceState
    reason: str | None = None
    detail: str = ""


def settle(view: DeviceView) -> Settled | None:
    """Give the outcome of a device, ``None`` while there is none.

    Success is only what the device verified on the release that it runs; silence is never an outcome.
    """
    if view.state is DeviceState.SUCCEEDED:
        return _fell_back(view)
    for said in (view.status, view.told):
        if said is not None and _is_of(said, view) and said.result is not None:
            return _ended(view, said)
    if view.retired:
        return Settled(view.device_id, DeviceState.SKIPPED, "retired")
    if not _is_ours(view):
        by_hand = view.assigned is None or view.assigned.rollout is None
        return Settled(view.device_id, DeviceState.SKIPPED, "by_hand" if by_hand else "superseded")
    if view.silent and view.state is DeviceState.ASSIGNED:
        return Settled(view.device_id, DeviceState.SKIPPED, "silent")
    return None


def _ended(view: DeviceView, said: Status) -> Settled | None:
    if said.result == Result.SUCCESSFUL:
        if said.running == view.release:
            return Settled(view.device_id, DeviceState.SUCCEEDED)
        detail = f"reported success, and runs {_named(said.running)}"
        return Settled(view.device_id, DeviceState.FAILED, "fell_back", detail)
    if said.reason in {Reason.SUPERSEDED, Reason.ABORTED, Reason.REMOVED} and not _is_ours(view):
        return Settled(view.device_id, DeviceState.SKIPPED, "superseded", said.detail)
    return Settled(view.device_id, DeviceState.FAILED, said.reason or "unknown", said.detail)


def _fell_back(view: DeviceView) -> Settled | None:
    """Notice a device that committed, and now says that it runs something else than it was asked to."""
    if not _is_ours(view) or view.status is None or view.retired or view.status.running == view.release:
        return None
    detail = f"committed release {view.release}, and now runs {_named(view.status.running)}"
    return Settled(view.device_id, DeviceState.FAILED, "fell_back", detail)


def _named(release: int | None) -> str:
    return "nothing" if release is None else f"release {release}"


def _is_of(said: Status, view: DeviceView) -> bool:
    return said.target == view.release and said.attempt == view.attempt


def _is_ours(view: DeviceView) -> bool:
    return view.assigned == Assigned(view.rollout, view.release, view.attempt)


def has_switched(view: DeviceView) -> bool:
    """Say whether the device is past the point where an abort can just drop what it does."""
    return view.status is not None and _is_of(view.status, view) and view.status.state in SWITCHED


# --- whether the next wave may begin


class GateState(StrEnum):
    """What a health gate says."""

    PASSED = "PASSED"
    FAILED = "FAILED"
    MISSING = "MISSING"


@dataclass(frozen=True, slots=True)
class Reading:
    """One health gate, read."""

    gate: str
    state: GateState
    limit: float
    value: float | None = None
    detail: str = ""
    """Which kind of machine, and against what."""


@dataclass(frozen=True, slots=True)
class Counts:
    """The devices of one wave. Forgiven failures are in ``forgiven`` alone."""

    waiting: int = 0
    held: int = 0
    assigned: int = 0
    succeeded: int = 0
    failed: int = 0
    selftest_failed: int = 0
    """Part of ``failed``."""
    forgiven: int = 0
    skipped: int = 0
    already: int = 0
    """Part of ``skipped``: they ran the release before."""
    cancelled: int = 0

    @property
    def without_outcome(self) -> int:
        return self.waiting + self.held + self.assigned

    @property
    def outcomes(self) -> int:
        return self.succeeded + self.failed

    @property
    def counting(self) -> int:
        """Devices that the thresholds look at."""
        return self.without_outcome + self.outcomes

    @property
    def rows(self) -> int:
        return self.counting + self.forgiven + self.skipped + self.cancelled


@dataclass(frozen=True, slots=True)
class WaveView:
    """One wave that was released."""

    number: int
    """From 1."""
    counts: Counts
    reached_at: float | None = None
    data_missing_since: float | None = None


@dataclass(frozen=True, slots=True)
class RolloutView:
    """What a running rollout is judged by."""

    policy: Policy
    waves: tuple[WaveView, ...]
    """Those that were released, in order; the last is the current one."""
    readings: tuple[Reading, ...] = ()
    """Of the current wave."""
    withdrawn: bool = False


class Action(StrEnum):
    """What a tick does with the rollout as a whole."""

    KEEP = "KEEP"
    ADVANCE = "ADVANCE"
    FINISH = "FINISH"
    PAUSE = "PAUSE"
    ABORT = "ABORT"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The action, why, and the current wave's marks from now on."""

    action: Action
    reason: str
    reached_at: float | None = None
    data_missing_since: float | None = None


def judge(view: RolloutView, now: float) -> Verdict:
    """Decide on a running rollout: errors first, then the current wave's way to the next."""
    policy, current = view.policy, view.waves[-1]
    if view.withdrawn:
        return withdrawal(policy)
    on_error = Action.ABORT if policy.on_error == "abort" else Action.PAUSE
    for wave in view.waves:
        breach = _error_breach(policy, wave)
        if breach is not None:
            return Verdict(on_error, breach)
    for reading in view.readings:
        if reading.state is GateState.FAILED:
            return Verdict(on_error, f"wave {current.number}: {describe(reading)}")
    nothing = _nothing_to_judge(policy, current)
    if nothing is not None:
        return Verdict(Action.PAUSE, nothing)
    if current.counts.counting == 0:
        return _passed(view)
    return _judge_success(view, now)


def withdrawal(policy: Policy) -> Verdict:
    """Give the verdict on a rollout whose release was withdrawn."""
    return Verdict(Action.ABORT, f"{policy.model}/{policy.release} was withdrawn")


def wave_policy(policy: Policy, number: int) -> Wave:
    """Give the rules of a wave, counted from 1."""
    return policy.waves[number - 1]


def _error_breach(policy: Policy, wave: WaveView) -> str | None:
    counts = wave.counts
    if policy.max_failed is not None and counts.failed > policy.max_failed:
        return f"wave {wave.number}: {counts.failed} devices failed, at most {policy.max_failed} may"
    sample = min(policy.min_sample, counts.counting)
    if counts.outcomes >= max(1, sample) and _above(counts.failed, policy.max_failed_share, counts.outcomes):
        return (
            f"wave {wave.number}: {counts.failed} of {counts.outcomes} devices failed, "
            f"at most {policy.max_failed_share:.3g} of them may"
        )
    return None


def _nothing_to_judge(policy: Policy, wave: WaveView) -> str | None:
    """Say why a wave without a device that counts proves nothing; ``None`` where nothing need be proven."""
    counts = wave.counts
    if counts.counting or (counts.rows and counts.rows == counts.already):
        return None
    if counts.rows == 0 and wave_policy(policy, wave.number).selector is None:
        return None  # a small share of a small group
    why = "matches no device" if counts.rows == 0 else "has no device left that counts"
    return f"wave {wave.number} {why}; retry its devices, or go on with next"


def _judge_success(view: RolloutView, now: float) -> Verdict:
    policy, wave = view.policy, view.waves[-1]
    rules, counts = wave_policy(policy, wave.number), wave.counts
    threshold = policy.success_threshold if rules.success_threshold is None else rules.success_threshold
    needed = max(1, math.ceil(threshold * counts.counting - _EPSILON))
    if counts.succeeded < needed:
        if counts.succeeded + counts.without_outcome < needed:
            return Verdict(
                Action.PAUSE,
                f"wave {wave.number}: {counts.failed} of {counts.counting} devices failed, so that the "
                f"{needed} that must commit cannot",
            )
        return Verdict(
            Action.KEEP, f"wave {wave.number}: {counts.succeeded} of {needed} devices have committed"
        )
    # a mark ahead of the clock is of a clock that was set back
    reached_at = now if wave.reached_at is None else min(now, wave.reached_at)
    soak_s = policy.soak_s if rules.soak_s is None else rules.soak_s
    if now - reached_at < soak_s:
        left_s = soak_s - (now - reached_at)
        return Verdict(Action.KEEP, f"wave {wave.number} soaks for {left_s:.0f} s more", reached_at)
    missing = [reading for reading in view.readings if reading.state is GateState.MISSING]
    if missing:
        since = now if wave.data_missing_since is None else min(now, wave.data_missing_since)
        why = f"wave {wave.number} waits: " + "; ".join(describe(reading) for reading in missing)
        late = now - since >= policy.gates.timeout_s
        return Verdict(Action.PAUSE if late else Action.KEEP, why, reached_at, since)
    return _passed(view, reached_at)


def _passed(view: RolloutView, reached_at: float | None = None) -> Verdict:
    policy, wave = view.policy, view.waves[-1]
    if wave.number < len(policy.waves):
        return Verdict(Action.ADVANCE, f"wave {wave.number} passed", reached_at)
    left = sum(one.counts.without_outcome for one in view.waves)
    if left:
        return Verdict(Action.KEEP, f"all waves passed, {left} devices have no outcome yet", reached_at)
    if policy.open_ended:
        return Verdict(Action.KEEP, "all waves passed; takes devices that enter the group", reached_at)
    return Verdict(Action.FINISH, "all waves passed", reached_at)


def _above(part: int, share: float, whole: int) -> bool:
    return part > share * whole + _EPSILON


def describe(reading: Reading) -> str:
    """Give a gate's reading as a sentence."""
    if reading.value is None:
        return f"{reading.gate} has no data: {reading.detail}"
    return f"{reading.gate} is {reading.value:.3g}, at most {reading.limit:.3g} ({reading.detail})"


# --- who is next


@dataclass(frozen=True, slots=True)
class Candidate:
    """A device that could be assigned, or whose hold could end."""

    device_id: str
    site: str = ""


@dataclass(frozen=True, slots=True)
class Places:
    """How many devices may be taken under way now."""

    total: int
    """At most, over all sites."""
    used_by_site: Mapping[str, int] = field(default_factory=dict)
    """Devices under way, over all rollouts."""
    by_site: int | None = None
    """At most under way in one site."""

    def full_sites(self) -> tuple[str, ...]:
        """Give the sites that take none."""
        if self.by_site is None:
            return ()
        return tuple(site for site, used in self.used_by_site.items() if used >= self.by_site)


def free_places(policy: Policy, under_way: int, used_by_site: Mapping[str, int]) -> Places:
    """Give the places that are free.

    Args:
        policy: of the rollout.
        under_way: its own devices in ASSIGNED.
        used_by_site: devices under way, over all rollouts.
    """
    left = BATCH if policy.max_concurrent is None else max(0, policy.max_concurrent - under_way)
    limit = None if policy.budget is None else policy.budget.max_unavailable
    return Places(min(BATCH, left), used_by_site, limit)


def take(candidates: Sequence[Candidate], places: Places) -> tuple[str, ...]:
    """Choose devices in their order, as far as there are places."""
    used = dict(places.used_by_site)
    taken: list[str] = []
    for one in candidates:
        if len(taken) >= places.total:
            break
        if places.by_site is not None and used.get(one.site, 0) >= places.by_site:
            continue
        used[one.site] = used.get(one.site, 0) + 1
        taken.append(one.device_id)
    return tuple(taken)


# --- which devices belong to which wave


def wave_sizes(policy: Policy, matched: Mapping[int, int], total: int) -> tuple[int, ...]:
    """Give how many devices each wave takes.

    Args:
        policy: with the waves.
        matched: by place of a wave with a selector: devices that it alone takes.
        total: devices in the group.
    """
    sizes: list[int] = []
    left = total - sum(matched.values())
    for place, wave in enumerate(policy.waves):
        if wave.selector is not None:
            sizes.append(matched.get(place, 0))
            continue
        if wave.percent is None:
            wanted = wave.count or 0
        else:
            wanted = math.ceil(wave.percent / 100 * total - _EPSILON) - sum(sizes)
        sizes.append(min(left, max(0, wanted)))
        left -= sizes[-1]
    return tuple(sizes)
