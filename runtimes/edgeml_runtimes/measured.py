"""Measures one artifact: the fresh process. ``python -m edgeml_runtimes.measured REQUEST ANSWER``.

REQUEST is JSON; lines of JSON go to the file ANSWER: the stage begun, at last the measurement or the
error. Nothing of an engine is imported before the memory of the bare interpreter is known.
"""

from __future__ import annotations

import gc
import json
import resource
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np

from edgeml import plugins
from edgeml.errors import EdgemlError, EngineError, MeasureError
from edgeml.manifest import Latency
from edgeml.measure import Measurement, Throughput, measurement_to_json
from edgeml.runtime import Profiler
from edgeml.targets import host

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from edgeml.arrays import Array
    from edgeml.runtime import Runtime, RuntimeOptions, Session
    from edgeml.tensors import TensorSpec

MIN_RUNS: Final = 10
WARMUP_RUNS: Final = 3
WARMUP_SHARE: Final = 0.2
"""Of the seconds to measure, run beforehand and not counted."""
SEED: Final = 0
T = TypeVar("T")
_KIB: Final = 1024


def main(request: dict[str, Any], say: Callable[[dict[str, Any]], None]) -> None:
    """Measure what ``request`` names, and say so."""
    try:
        say(_measure(request, say))
    except EdgemlError as error:
        say({"error": str(error)})


def _measure(request: dict[str, Any], say: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    machine = host().name
    plugins.names(plugins.RUNTIME_GROUP)  # the search for entry points is not the engine's import
    memory_before = _resident_bytes()
    say({"stage": "was imported"})
    import_ms, runtime = _timed(lambda: plugins.runtime(request["runtime"]))
    options = runtime.options(request["options"])
    artifact = Path(request["artifact"])
    say({"stage": "loaded the model"})
    load_ms, session = _timed(lambda: runtime.load(artifact, options))
    inputs = {
        spec.name: _sample(spec, request["shapes"].get(spec.name), np.random.default_rng(SEED))
        for spec in session.inputs
    }
    say({"stage": "ran the model"})
    warmup, times_ns = _times(session, inputs, request["seconds"], request["runs"])
    peak = _peak_bytes() - memory_before
    session.close()
    measurement = Measurement(
        runtime=runtime.name,
        runtime_version=runtime.version,
        artifact=request["artifact"],
        threads=options.threads,
        warmup=warmup,
        runs=len(times_ns),
        latency_ms=Latency(*(float(part) / 1e6 for part in np.percentile(times_ns, [50, 95, 99]))),
        load_ms=load_ms,
        import_ms=import_ms,
        peak_memory_bytes=peak,
        machine=machine,
        throughput=(Throughput(options.threads, len(times_ns) / (sum(times_ns) / 1e9)),),
    )
    answer: dict[str, Any] = {"measurement": measurement_to_json(measurement)}
    if request["profile"]:
        say({"stage": "profiled the model"})
        answer |= _profiled(runtime, artifact, inputs, options)
    return answer


def _profiled(
    runtime: Runtime, artifact: Path, inputs: Mapping[str, Array], options: RuntimeOptions
) -> dict[str, Any]:
    """Time the operators, or say why not: what was measured before stays."""
    if not isinstance(runtime, Profiler):
        return {"note": f"{runtime.name} cannot time single operators"}
    try:
        return {"operators": [asdict(part) for part in runtime.profile(artifact, inputs, options)]}
    except EngineError as error:
        return {"note": str(error)}


def _sample(spec: TensorSpec, shape: list[int] | None, random: np.random.Generator) -> Array:
    """Draw an input: numbers in [0, 1), stored values of quantized and 8-bit inputs, 0 for indices."""
    if shape is None:
        if any(side is None for side in spec.shape[1:]):
            raise MeasureError(
                f"{spec} has free dimensions; give their sizes: --shape {spec.name}=1,"
                + ",".join("…" if side is None else str(side) for side in spec.shape[1:])
            )
        shape = [1 if side is None else side for side in spec.shape]
    dtype = np.dtype(spec.dtype)
    if dtype.kind == "f":
        return random.random(shape, np.float32).astype(dtype)
    if dtype.kind in "iu" and (spec.quantization is not None or dtype.itemsize == 1):
        info = np.iinfo(dtype)
        return random.integers(info.min, info.max, shape, dtype, endpoint=True)
    return np.zeros(shape, dtype)


def _times(
    session: Session, inputs: Mapping[str, Array], seconds: float, runs: int | None
) -> tuple[int, list[int]]:
    """Give the number of runs that were not counted, and the nanoseconds of each that was."""
    run, clock = session.run, time.perf_counter_ns
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


def _timed(work: Callable[[], T]) -> tuple[float, T]:
    begun = time.perf_counter()
    result = work()
    return (time.perf_counter() - begun) * 1e3, result


def _resident_bytes() -> int:
    return _status_bytes("VmRSS") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _KIB


def _peak_bytes() -> int:
    # ru_maxrss starts at the parent's size on Linux; VmHWM is this program's own.
    return _status_bytes("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _KIB


def _status_bytes(key: str) -> int:
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return 0
    lines = [line.split() for line in status.splitlines() if line.startswith(f"{key}:")]
    return int(lines[0][1]) * _KIB if lines else 0


if __name__ == "__main__":
    with Path(sys.argv[2]).open("a", buffering=1) as answers:
        main(json.loads(sys.argv[1]), lambda part: print(json.dumps(part), file=answers))
