"""What one benchmark of one artifact in one fresh process found; the shape of ``edgeml bench --json``.

`convert` reads it back from a process that it starts through a transport, so the same code
measures on this machine and on a device.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any, Final

from edgeml.errors import MeasureError
from edgeml.manifest import Latency

EMULATED: Final = "emulated: correctness, memory and protocol only"
"""What every report says of figures that an emulated machine gave."""


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
    emulated: bool = False
    """The machine is emulated: its times say nothing of the board, not even which file is the quicker one."""
    temperature_celsius: float | None = None
    """The highest of the processor's sensors, before and after; ``None``: the machine shows none."""
    cpu_frequency_hertz: float | None = None
    """The lowest clock that was seen, as the mean of the cores."""
    throttled: bool | None = None
    """Whether the machine was seen to be slowed down, by heat or a weak supply."""


def measurement_to_json(measurement: Measurement) -> dict[str, Any]:
    """Give a measurement as what ``json.dumps`` takes, its fields by name."""
    return {**asdict(measurement), "throughput": [asdict(part) for part in measurement.throughput]}


def measurement_from_json(values: Mapping[str, Any]) -> Measurement:
    """Read one entry of ``results``; fields that are not a measurement's are left aside.

    Raises:
        MeasureError: the entry says that the benchmark failed, or lacks a field.
    """
    if values.get("status", "ok") != "ok":
        raise MeasureError(
            f"{values.get('artifact', 'a model')} could not be measured: {values.get('reason')}"
        )
    try:
        defaults = {one.name: one.default for one in fields(Measurement) if one.default is not MISSING}
        values = defaults | dict(values)  # an edgeml of before knew of no emulator and no sensors
        known = {field.name: values[field.name] for field in fields(Measurement)}
        known["latency_ms"] = Latency(
            **{key: float(known["latency_ms"][key]) for key in ("p50", "p95", "p99")}
        )
        known["throughput"] = tuple(
            Throughput(int(part["threads"]), float(part["per_second"])) for part in known["throughput"]
        )
        return Measurement(**known)
    except (KeyError, TypeError, ValueError) as error:
        raise MeasureError(
            f"a benchmark's result cannot be read: {error!r}; is edgeml older there?"
        ) from error
