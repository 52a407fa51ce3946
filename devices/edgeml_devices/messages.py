"""What device and server say to each other: JSON documents, the same over every transport.

Unknown fields are ignored, so that an older side understands a newer one. Times are Unix seconds of the
clock of whoever wrote them; a device's may be wrong. Light to import: the agent runs on this.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, Literal

SCHEMA: Final = 1


class State(StrEnum):
    """Where one model on one device stands; docs/reference/fleet.md has the machine."""

    IDLE = "IDLE"
    ACCEPTED = "ACCEPTED"
    FETCHING = "FETCHING"
    STAGED = "STAGED"
    SELFTEST = "SELFTEST"
    SWITCHING = "SWITCHING"
    PROBATION = "PROBATION"
    COMMITTED = "COMMITTED"
    ROLLING_BACK = "ROLLING_BACK"
    FAILED = "FAILED"
    QUARANTINED = "QUARANTINED"


class Result(StrEnum):
    """How a deployment on one device ended."""

    SUCCESSFUL = "SUCCESSFUL"
    FAILED_NO_STATE_CHANGE = "FAILED_NO_STATE_CHANGE"
    FAILED_ROLLBACK_COMPLETE = "FAILED_ROLLBACK_COMPLETE"
    FAILED_UNABLE_TO_ROLLBACK = "FAILED_UNABLE_TO_ROLLBACK"


class Reason(StrEnum):
    """Why a deployment ended as it did, for machines; a text for people goes with it."""

    DISK_FULL = "disk_full"
    READ_ONLY = "read_only"
    IO_ERROR = "io_error"
    NETWORK = "network"
    HASH = "hash"
    SIGNATURE = "signature"
    METADATA_EXPIRED = "metadata_expired"
    METADATA_ROLLBACK = "metadata_rollback"
    CLOCK = "clock"
    UNKNOWN_RELEASE = "unknown_release"
    BELOW_FLOOR = "below_floor"
    MANIFEST = "manifest"
    INCOMPATIBLE = "incompatible"
    PARITY = "parity"
    LATENCY = "latency"
    MEMORY = "memory"
    SELFTEST_CRASH = "selftest_crash"
    SELFTEST_TIMEOUT = "selftest_timeout"
    ENGINE = "engine"
    ERROR_RATE = "error_rate"
    HEARTBEAT = "heartbeat"
    LOAD_FAILED = "load_failed"
    SERVER_UNREACHABLE = "server_unreachable"
    RESTART_FAILED = "restart_failed"
    TOO_MANY_STEPS = "too_many_steps"
    TOO_MANY_STARTS = "too_many_starts"
    UNREADABLE_STATE = "unreadable_state"
    SUPERSEDED = "superseded"
    ABORTED = "aborted"
    REMOVED = "removed"
    BUSY = "busy"
    """Another deploy, or an agent, has the device's home."""
    HEALTH_CHECK = "health_check"
    """The operator's own check failed after the switch."""


# --- server to device


@dataclass(frozen=True, slots=True)
class Assignment:
    """What one model on one device is to be."""

    release: int | None
    """The release to run; ``None``: the model is to be removed."""
    attempt: int = 1
    """Rises when the same release is to be tried again; a failed attempt is not repeated by itself."""
    hold: bool = False
    """Fetch, stage and test, but do not switch: outside the maintenance window."""
    open_for_s: float | None = None
    """How long after this answer the device may begin to switch, on its monotonic clock.

    After that, and after a restart, it holds until the next answer. ``None``: no limit.
    """
    on_abort: Literal["finish", "rollback"] = "finish"
    """What a device in PROBATION does when the assignment goes back to what it ran before."""
    rollout: str | None = None


@dataclass(frozen=True, slots=True)
class DesiredState:
    """``GET /v1/agent/state``: everything the device is to be.

    It is not signed: it can only choose among signed releases at or above the signed floor.
    """

    generation: int
    """Rises with each change for this device; also the ETag."""
    models: Mapping[str, Assignment] = field(default_factory=dict)
    """By model name. A model that is not named is left alone."""
    poll_s: float = 55.0
    """How long to wait in the next poll."""
    schema: int = SCHEMA


@dataclass(frozen=True, slots=True)
class Enrolled:
    """``POST /v1/enrol``'s answer."""

    device_id: str
    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    schema: int = SCHEMA


# --- device to server


@dataclass(frozen=True, slots=True)
class Facts:
    """What a device is. Feeds the choice of a variant on the server as on the device."""

    target: Mapping[str, Any]
    """``edgeml.targets.Target`` by field: name, architecture, cores, cpu_features, memory_bytes …"""
    engines: Mapping[str, str] = field(default_factory=dict)
    """Runtime name to the version of its engine that is installed."""
    edgeml: str = ""
    """Version of edgeml."""
    python: str = ""
    system: str = ""
    """Kernel and distribution, for people."""
    disk_free_bytes: int | None = None
    disk_total_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class EnrolRequest:
    """``POST /v1/enrol``.

    The device makes its own token and keeps it before it asks: a lost answer is asked for again
    without a second device.
    """

    join_token: str
    device_token: str
    """43 or more characters of URL-safe base64: 256 random bits. The server keeps its hash."""
    name: str = ""
    """Wanted name; the server makes it unique. Empty: the host's name."""
    facts: Facts | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    """Wishes; the labels of the join token win."""
    schema: int = SCHEMA


@dataclass(frozen=True, slots=True)
class Tested:
    """What the self-test of one variant found."""

    passed: bool
    reason: str | None = None
    p50_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None
    load_ms: float | None = None
    peak_memory_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """One model on the device, as it is now."""

    state: State
    running: int | None = None
    """The release that ``current`` leads to."""
    manifest_sha256: str | None = None
    """Of the running release."""
    variant: str | None = None
    """Of the running release."""
    target: int | None = None
    """The release on its way, or the last that was tried."""
    attempt: int = 1
    result: Result | None = None
    """Of the attempt at ``target``, once it has ended."""
    reason: str | None = None
    """A :class:`Reason`; a newer device may know more of them."""
    detail: str = ""
    rollout: str | None = None
    ready: bool = False
    """The self-test has passed, and the switch waits for ``hold`` to end."""
    selftest: Mapping[str, Tested] = field(default_factory=dict)
    """Of ``target``, by variant."""


@dataclass(frozen=True, slots=True)
class Event:
    """A change of state, for the history."""

    seq: int
    at: float
    model: str
    release: int | None
    attempt: int
    state: State
    result: Result | None = None
    reason: str | None = None
    """A :class:`Reason`; a newer device may know more of them."""
    detail: str = ""
    """For people; at most 4,000 characters."""
    rollout: str | None = None
    variant: str | None = None


@dataclass(frozen=True, slots=True)
class Health:
    """What the processes that run a model did in one window."""

    seq: int
    at: float
    """The window's end."""
    duration_s: float
    model: str
    release: int
    variant: str
    processes: int
    calls: int
    errors: int
    latency_counts: Mapping[str, int] = field(default_factory=dict)
    """``edgeml.histogram.Histogram.counts`` of milliseconds, index as text."""
    detail: str = ""
    """Of the last error."""


@dataclass(frozen=True, slots=True)
class Report:
    """``POST /v1/agent/reports``.

    ``models`` is the whole truth of now: that of an older ``seq`` changes nothing. ``events`` and ``health``
    are added once each, by (device, epoch, seq).
    """

    device_id: str
    """The token's device, or the report is refused."""
    epoch: str
    """Random; new when the device has lost count of ``seq``."""
    seq: int
    """Rises with each report of the epoch."""
    at: float
    """The device's clock as it sends."""
    models: Mapping[str, ModelStatus] = field(default_factory=dict)
    events: tuple[Event, ...] = ()
    health: tuple[Health, ...] = ()
    facts: Facts | None = None
    """Where they changed since they were last accepted."""
    generation: int | None = None
    """Of the desired state that the device works on."""
    schema: int = SCHEMA


@dataclass(frozen=True, slots=True)
class Accepted:
    """The answer to a report, given after the commit: what the device may forget."""

    events: int = -1
    """Highest ``seq`` of this epoch's events that is stored."""
    health: int = -1
    schema: int = SCHEMA
