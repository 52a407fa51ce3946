"""What a process measures of itself: time of calls, and memory."""

from __future__ import annotations

import gc
import resource
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import numpy as np

from edgeml.manifest import Latency

if TYPE_CHECKING:
    from edgeml.arrays import Array
    from edgeml.tensors import TensorSpec

MIN_RUNS: Final = 10
WARMUP_RUNS: Final = 3
WARMUP_SHARE: Final = 0.2
"""Of the seconds to measure, run beforehand and not counted."""
T = TypeVar("T")
_KIB: Final = 1024


def timed(work: Callable[[], T]) -> tuple[float, T]:
    """Give the milliseconds that a call took, and its result."""
    begun = time.perf_counter()
    result = work()
    return (time.perf_counter() - begun) * 1e3, result


def run_times(
    run: Callable[[Mapping[str, Array]], object],
    inputs: Mapping[str, Array],
    seconds: float,
    runs: int | None = None,
) -> tuple[int, list[int]]:
    """Call ``run`` for so many seconds, or so many times.

    Returns:
        The number of runs that were not counted, and the nanoseconds of each that was.
    """
    clock = time.perf_counter_ns
    warmup, warm_until = 0, clock() + int(seconds * WARMUP_SHARE * 1e9)
    while warmup < WARMUP_RUNS or (runs is None and clock() < warm_until):
        run(inputs)
        warmup += 1
    times: list[int] = []
    gc.collect()
    gc.disable()
    until = clock() + int(seconds * 1e9)
    while len(times) < runs if runs is not None else (len(times) < MIN_RUNS or clock() < until):
        begun = clock()
        run(inputs)
        times.append(clock() - begun)
    gc.enable()
    return warmup, times


def latency_ms(times_ns: Sequence[int]) -> Latency:
    """Give the percentiles of times in nanoseconds, in milliseconds."""
    return Latency(*(float(part) / 1e6 for part in np.percentile(times_ns, [50, 95, 99])))


def drawn(spec: TensorSpec, shape: Sequence[int], random: np.random.Generator) -> Array:
    """Draw an input: numbers in [0, 1), stored values of quantized and 8-bit inputs, 0 for indices."""
    dtype = np.dtype(spec.dtype)
    if dtype.kind == "f":
        return random.random(shape, np.float32).astype(dtype)
    if dtype.kind in "iu" and (spec.quantization is not None or dtype.itemsize == 1):
        info = np.iinfo(dtype)
        return random.integers(info.min, info.max, shape, dtype, endpoint=True)
    return np.zeros(shape, dtype)


def resident_bytes() -> int:
    """Give the resident set of this process."""
    return _status_bytes("VmRSS") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _KIB


def peak_bytes() -> int:
    """Give the largest resident set that this program has had."""
    # ru_maxrss starts at the parent's size on Linux; VmHWM is this program's own.
    return _status_bytes("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _KIB


def reset_peak() -> None:
    """Let :func:`peak_bytes` begin again at what is resident now (proc_pid_clear_refs(5))."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _status_bytes(key: str) -> int:
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return 0
    lines = [line.split() for line in status.splitlines() if line.startswith(f"{key}:")]
    return int(lines[0][1]) * _KIB if lines else 0
