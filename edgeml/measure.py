"""What one benchmark of one artifact in one fresh process found; the shape of ``edgeml bench --json``.

`convert` reads it back from a process that it starts through a transport, so the same code
measures on this machine and on a device.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgeml.manifest import Latency


@dataclass(frozen=True, slots=True)
class Throughput:
    """Inferences per second with that many engine threads."""

    threads: int
    per_second: float


@dataclass(frozen=True, slots=True)
class Measurement:
    """One artifact on one machine."""

    runtime: str
    runtime_version: str
    artifact: str
    threads: int
    warmup: int
    runs: int
    latency_ms: Latency
    load_ms: float
    """From the file to a session that can run, engine import excluded."""
    import_ms: float
    peak_memory_bytes: int
    """Peak resident set minus the resident set before the engine was imported."""
    machine: str
    """``targets.host().name`` of the machine that ran it."""
    throughput: tuple[Throughput, ...] = ()
