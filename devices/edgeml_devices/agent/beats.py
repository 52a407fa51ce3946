"""What processes that run models say of them, summed over windows and over a probation."""

from __future__ import annotations

import select
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from edgeml.errors import MessageError
from edgeml.health import BEAT_LIMIT_BYTES, HealthBeat, HealthPolicy, beat_from_bytes
from edgeml.histogram import Histogram
from edgeml_devices.agent.failures import StepFailedError
from edgeml_devices.messages import Health, Reason

IN_USE_WITHIN_S: Final = 60.0
"""A process that reported a release so lately may still use its files."""
_EARLY_ERRORS: Final = 10
"""So many errors, at a rate above the limit, end a probation before its time."""
_PROCESSES_LIMIT: Final = 1000
"""Any process of the device may send; the oldest is forgotten beyond this."""
_WINDOWS_LIMIT: Final = 16
"""Releases and variants of one model that are summed up at once; no device runs as many."""


@dataclass(frozen=True, slots=True)
class Heard:
    """When a process reported first and last, by the monotonic clock."""

    first: float
    last: float


@dataclass(slots=True)
class Sum:
    """Calls of all processes, added up."""

    variant: str = ""
    calls: int = 0
    errors: int = 0
    latency: Histogram = field(default_factory=Histogram)
    processes: set[str] = field(default_factory=set)
    at_work: dict[str, Heard] = field(default_factory=dict)
    """Of these more is to come: they did not say that they are done."""
    last_beat: float | None = None
    """By the monotonic clock."""
    load_failed: str | None = None
    detail: str = ""


@dataclass(slots=True)
class _Process:
    """What a process said last of a release."""

    beat: HealthBeat
    at: float


class Beats:
    """Takes beats, which count up for each process and release. Safe to use from several threads."""

    def __init__(
        self,
        monotonic: Callable[[], float] = time.monotonic,
        is_installed: Callable[[str], bool] = lambda _: True,
    ) -> None:
        self._monotonic = monotonic
        self._is_installed = is_installed
        self._lock = threading.Lock()
        self._processes: dict[tuple[str, str, int], _Process] = {}
        self._releases: Counter[tuple[str, str]] = Counter()
        """How many releases are known of a process."""
        self._windows: dict[str, dict[tuple[int, str], Sum]] = {}
        self._watched: dict[tuple[str, int], Sum] = {}
        self._defers: dict[str, float] = {}

    def take(self, datagram: bytes) -> None:
        """Count a datagram; one that is no beat, or of a model that is not here, is dropped."""
        try:
            beat = beat_from_bytes(datagram)
        except MessageError:
            return
        if self._is_installed(beat.model):
            with self._lock:
                self._count(beat, self._monotonic())

    def _count(self, beat: HealthBeat, now: float) -> None:
        key = (beat.model, beat.process, beat.release)
        before = self._processes.pop(key, None)
        if before is not None and beat.seq <= before.beat.seq:
            self._processes[key] = before
            return
        known = before is not None or beat.seq <= 1 or key[:2] in self._releases
        self._processes[key] = _Process(beat, now)
        self._releases[key[:2]] += before is None
        if len(self._processes) > _PROCESSES_LIMIT:
            self._forget_oldest()
        if beat.defer_s > 0:
            self._defers[beat.model] = max(self._defers.get(beat.model, 0.0), now + beat.defer_s)
        # an agent that was restarted does not know since when an old process counts
        base = before.beat if before is not None else None if known else beat
        windows = self._windows.setdefault(beat.model, {})
        place = (beat.release, beat.variant)
        if place in windows or len(windows) < _WINDOWS_LIMIT:
            _add(windows.setdefault(place, Sum(beat.variant)), beat, base, now)
        watched = self._watched.get((beat.model, beat.release))
        if watched is not None:
            _add(watched, beat, base, now)

    def _forget_oldest(self) -> None:
        oldest = next(iter(self._processes))
        del self._processes[oldest]
        self._releases[oldest[:2]] -= 1
        if not self._releases[oldest[:2]]:
            del self._releases[oldest[:2]]

    def seen(self, model: str, within_s: float) -> bool:
        """Say whether a process reported a model so lately, whichever release, and is not done with it."""
        return any(self._at_work(model, within_s))

    def releases(self, model: str) -> frozenset[int]:
        """Give the releases that processes ran a moment ago: their files must stay."""
        return frozenset(self._at_work(model, IN_USE_WITHIN_S))

    def _at_work(self, model: str, within_s: float) -> list[int]:
        with self._lock:
            since = self._monotonic() - within_s
            return [
                release
                for (name, _, release), one in self._processes.items()
                if name == model and one.at >= since and one.beat.state != "closed"
            ]

    def deferred_s(self, model: str) -> float:
        """Give how long a process wants no switch to begin."""
        with self._lock:
            return max(0.0, self._defers.get(model, 0.0) - self._monotonic())

    def watch(self, model: str, release: int) -> Sum:
        """Begin to sum a release up, until another watch of it begins."""
        with self._lock:
            found = self._watched[model, release] = Sum()
            for key in [one for one in self._watched if one[0] == model and one[1] != release]:
                del self._watched[key]
            return found

    def watched(self, model: str, release: int) -> Sum:
        """Give the sum that a watch began; one that begins now where an earlier agent's is lost."""
        with self._lock:
            found = self._watched.get((model, release))
        return self.watch(model, release) if found is None else found

    def cut(self, model: str, duration_s: float, at: float) -> list[Health]:
        """End a model's windows and give those in which something was said."""
        with self._lock:
            ended = self._windows.pop(model, {})
        return [
            Health(
                seq=0,
                at=at,
                duration_s=duration_s,
                model=model,
                release=release,
                variant=variant,
                processes=len(one.processes),
                calls=one.calls,
                errors=one.errors,
                latency_counts=one.latency.to_json(),
                detail=one.detail,
            )
            for (release, variant), one in ended.items()
        ]

    def models(self) -> frozenset[str]:
        """Give the models that have an open window."""
        with self._lock:
            return frozenset(self._windows)


def receive(receiver: socket.socket, beats: Beats, wait_s: float) -> None:
    """Wait for a datagram, and hand it over if one comes."""
    ready, _, _ = select.select([receiver], [], [], wait_s)
    if ready:
        with suppress(OSError):
            # a byte more than may be: what is cut off is refused
            beats.take(receiver.recv(BEAT_LIMIT_BYTES + 1))


def _add(total: Sum, beat: HealthBeat, base: HealthBeat | None, now: float) -> None:
    if len(total.processes) < _PROCESSES_LIMIT:
        total.processes.add(beat.process)
    first = total.at_work.get(beat.process, Heard(now, now)).first
    if beat.state == "closed":
        total.at_work.pop(beat.process, None)
    elif beat.process in total.at_work or len(total.at_work) < _PROCESSES_LIMIT:
        total.at_work[beat.process] = Heard(first, now)
    total.last_beat = now
    total.variant = beat.variant
    if beat.detail:
        total.detail = beat.detail
    if beat.state == "load_failed":
        total.load_failed = beat.detail or "a process could not load it"
    total.calls += max(0, beat.calls - (base.calls if base else 0))
    total.errors += max(0, beat.errors - (base.errors if base else 0))
    before = base.latency_counts if base else {}
    gained = {name: count - before.get(name, 0) for name, count in beat.latency_counts.items()}
    total.latency.merge(Histogram({int(name): count for name, count in gained.items() if count > 0}))


@dataclass(frozen=True, slots=True)
class Probation:
    """Judges a release by what its processes say since it was switched to."""

    policy: HealthPolicy
    expects_beats: bool
    """Processes reported this model before the switch."""
    began: float
    """By the monotonic clock."""

    @property
    def needs_beats(self) -> bool:
        return self.policy.heartbeat == "required" or (
            self.policy.heartbeat == "if-seen" and self.expects_beats
        )

    def require_sound(self, total: Sum, now: float) -> None:
        """Look at what can end a probation at any time.

        Raises:
            StepFailedError: the release must not stay.
        """
        if total.load_failed is not None:
            raise StepFailedError(Reason.LOAD_FAILED, total.load_failed)
        if total.errors >= _EARLY_ERRORS:
            self._require_error_rate(total)
        silent_s = None if total.last_beat is None else now - total.last_beat
        if self.policy.heartbeat != "none" and silent_s is not None and total.at_work:
            self._require_beat(silent_s)

    def require_passed(self, total: Sum, now: float) -> None:
        """Judge the whole, at the end of the window.

        Raises:
            StepFailedError: the release must not stay.
        """
        self.require_sound(total, now)
        if self.needs_beats and total.last_beat is None:
            raise StepFailedError(
                Reason.HEARTBEAT, f"no process reported the release within {now - self.began:.0f} s"
            )
        if total.calls < self.policy.min_calls:
            detail = f"{total.calls} calls in the probation, the policy wants {self.policy.min_calls}"
            raise StepFailedError(Reason.HEARTBEAT, detail)
        if self.policy.heartbeat != "none":
            self._require_one_that_goes_on(total, now)
        self._require_error_rate(total)
        limit_ms, p95_ms = self.policy.max_latency_p95_ms, total.latency.quantile(0.95)
        if limit_ms is not None and p95_ms is not None and p95_ms > limit_ms:
            detail = f"p95 of {total.calls} calls is {p95_ms:.4g} ms, the limit {limit_ms:.4g} ms"
            raise StepFailedError(Reason.LATENCY, detail)

    def _require_error_rate(self, total: Sum) -> None:
        if total.calls and total.errors / total.calls > self.policy.max_error_rate:
            last = f": {total.detail}" if total.detail else ""
            detail = (
                f"{total.errors} of {total.calls} calls failed, allowed are {self.policy.max_error_rate:.1%}"
            )
            raise StepFailedError(Reason.ERROR_RATE, detail + last)

    def _require_beat(self, silent_s: float) -> None:
        if silent_s > self.policy.heartbeat_timeout_s:
            raise StepFailedError(
                Reason.HEARTBEAT, f"processes that ran the release have been silent for {silent_s:.0f} s"
            )

    def _require_one_that_goes_on(self, total: Sum, now: float) -> None:
        """Tell one that took the place of another from those that crash and are begun again and again."""
        limit_s = self.policy.heartbeat_timeout_s
        lives = list(total.at_work.values())  # at once: beats come in another thread
        here = [one for one in lives if now - one.last <= limit_s]
        longest_s = max((one.last - one.first for one in here), default=0.0)
        if len(here) < len(lives) and longest_s < limit_s / 2:
            gone = f"{len(lives) - len(here)} processes that ran the release ended without a word"
            raise StepFailedError(
                Reason.HEARTBEAT, f"{gone}, and none that is left has run it for {limit_s / 2:.0f} s"
            )
