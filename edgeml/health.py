"""How a release has to do on a device, and what processes that run it say of it.

A process says every two seconds, and when it switches, how it has done so far, as one datagram to
``health.sock`` in the home folder. It never waits: where no agent listens, nothing happens.
"""

from __future__ import annotations

import json
import math
import os
import re
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Final, Literal

from edgeml import typed_json
from edgeml.errors import BundleError, MessageError, UsageError
from edgeml.histogram import Histogram
from edgeml.manifest import Manifest
from edgeml.toml_file import reject_unknown

SOCKET: Final = "health.sock"
BEAT_EVERY_S: Final = 2.0
BEAT_LIMIT_BYTES: Final = 16 * 1024
"""All buckets of a histogram with counts of ten digits are 6 KiB."""
DETAIL_LIMIT: Final = 1000
"""Characters of a beat's detail; more is cut."""
MOST_CALLS: Final = 2**40
"""Of one release in one process: a million a second for twelve days."""
_COUNTER: Final = 2**53
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_NOT_NEGATIVE: Final = (
    "probation_s",
    "heartbeat_timeout_s",
    "min_calls",
    "max_latency_p95_ms",
    "selftest_max_latency_p95_ms",
    "selftest_max_memory_bytes",
    "selftest_timeout_s",
    "server_timeout_s",
    "max_starts",
)


@dataclass(frozen=True, slots=True)
class HealthPolicy:
    """When a release is sound on a device. ``None``: no limit."""

    probation_s: float = 60.0
    """How long the device watches after a switch before it keeps the release."""
    heartbeat: Literal["required", "if-seen", "none"] = "if-seen"
    """``required``: a process must report the release within the probation; ``if-seen``: processes that
    report must go on reporting; ``none``: beats are not looked at."""
    heartbeat_timeout_s: float = 30.0
    """A process is gone when it has not reported for so long."""
    max_error_rate: float = 0.05
    """Errors by calls."""
    min_calls: int = 0
    """So many calls there must be by the end of the probation."""
    max_latency_p95_ms: float | None = None
    """Of calls in the probation."""
    offline_allowed: bool = False
    """Keep a release though the server was not reached with it."""
    selftest_max_latency_p95_ms: float | None = None
    """Of golden samples in the self-test's process."""
    selftest_max_memory_bytes: int | None = None
    """Growth of the peak resident set of the self-test's process, engine included."""
    selftest_timeout_s: float = 120.0
    server_timeout_s: float = 600.0
    """How long a probation may last until the server is reached."""
    max_starts: int = 3
    """How often a probation may begin again after the device or agent was restarted."""


def health_policy(manifest: Manifest) -> HealthPolicy:
    """Read ``health`` of a manifest; what is not said holds its default, unknown keys are left aside.

    Raises:
        BundleError: a value of a wrong type, or one that cannot be.
    """
    try:
        return _read(manifest.health, f"{manifest.name}: health")
    except MessageError as error:
        raise BundleError(str(error)) from error


def declared_health(table: Mapping[str, Any], where: str) -> HealthPolicy:
    """Read a policy that a person wrote: the same, but a key that is not known is refused.

    Raises:
        UsageError: an unknown key, or as :func:`health_policy`.
    """
    reject_unknown(table, [field.name for field in fields(HealthPolicy)], where)
    try:
        return _read(table, where)
    except MessageError as error:
        raise UsageError(str(error)) from error


def _read(table: Mapping[str, Any], where: str) -> HealthPolicy:
    policy = typed_json.read(HealthPolicy, dict(table), where)
    for name in _NOT_NEGATIVE:
        value = getattr(policy, name)
        if value is not None and not 0 <= value < math.inf:
            raise MessageError(f"{where}: {name}: must be 0 or more, got {value}")
    if not 0 <= policy.max_error_rate <= 1:
        raise MessageError(f"{where}: max_error_rate: must be from 0 to 1, got {policy.max_error_rate}")
    return policy


# --- beats


@dataclass(frozen=True, slots=True)
class HealthBeat:
    """What a process that runs an installed model says of one release, counted since it loaded it."""

    model: str
    release: int
    variant: str
    pid: int
    process: str
    """Random; another one for each process and each model in it."""
    seq: int
    """Rises with each beat of ``process``."""
    state: Literal["running", "load_failed", "closed"] = "running"
    """``load_failed``: the release could not be loaded, the process goes on with the one it had;
    ``closed``: the process is done with the release, no more beats of it are due."""
    calls: int = 0
    """Cumulative for (process, release), failed ones included."""
    errors: int = 0
    """Calls that failed in the engine; a caller's wrong input is none."""
    latency_counts: Mapping[str, int] = field(default_factory=dict)
    """:class:`edgeml.histogram.Histogram` of milliseconds of calls that succeeded, index as text."""
    detail: str = ""
    """Of the last error, for people."""
    defer_s: float = 0.0
    """The process asks that no switch begins within so many seconds."""
    schema: int = 1


def beat_to_bytes(beat: HealthBeat) -> bytes:
    """Give a beat as one datagram of JSON."""
    cut = replace(beat, detail=beat.detail[:DETAIL_LIMIT])
    return json.dumps(typed_json.write(cut), separators=(",", ":")).encode()


def beat_from_bytes(data: bytes) -> HealthBeat:
    """Read a datagram, which any process of the device may have sent.

    Raises:
        MessageError: it is not a beat.
    """
    if len(data) > BEAT_LIMIT_BYTES:
        raise MessageError(f"health beat: {len(data)} bytes, at most {BEAT_LIMIT_BYTES} are read")
    beat = typed_json.read(HealthBeat, typed_json.parse(data, "health beat"), "health beat")
    counted = Histogram.from_json(beat.latency_counts).total
    counts_hold = 0 <= beat.errors <= beat.calls <= MOST_CALLS and counted <= beat.calls
    counters_hold = all(0 <= number < _COUNTER for number in (beat.release, beat.seq))
    if not counts_hold or not counters_hold or not 0 <= beat.defer_s < math.inf:
        raise MessageError(f"health beat of {beat.model!r:.60}: counts that cannot be")
    if not all(_NAME.fullmatch(name) for name in (beat.model, beat.variant)):
        raise MessageError(f"health beat of {beat.model!r:.60}: no name of a model and a variant")
    # a path that is not UTF-8 comes as halves of surrogate pairs, which no report could carry
    return replace(beat, detail=beat.detail.encode("utf-8", "replace").decode()[:DETAIL_LIMIT])


def listen(home: Path) -> socket.socket:
    """Open the socket that beats come to, in the place of one that a killed agent left.

    Every process of the device may send. The socket does not block.

    Raises:
        OSError: the folder is missing or cannot be written.
    """
    receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        receiver.settimeout(0)
        with suppress(FileNotFoundError):
            (home / SOCKET).unlink()
        with _address(home) as address:
            receiver.bind(address)
        (home / SOCKET).chmod(0o666)
    except BaseException:
        receiver.close()
        raise
    return receiver


def send(home: Path, data: bytes) -> bool:
    """Send one datagram; say whether somebody took it. Never waits, never raises."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender, _address(home) as address:
            sender.settimeout(0)
            return sender.sendto(data, address) == len(data)
    except OSError:
        return False


@contextmanager
def _address(home: Path) -> Iterator[str]:
    """Give the socket's address; by way of the folder's handle, as an address has 107 bytes at most."""
    if not hasattr(os, "O_PATH"):  # not Linux
        yield str(home / SOCKET)
        return
    handle = os.open(home, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{handle}/{SOCKET}"
    finally:
        os.close(handle)
