"""Measures one artifact: the fresh process. ``python -m edgeml_runtimes.measured REQUEST ANSWER``.

REQUEST is JSON; lines of JSON go to the file ANSWER: the stage begun, at last the measurement or the
error. Nothing of an engine is imported before the memory of the bare interpreter is known.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from edgeml import plugins
from edgeml.cpu import emulated
from edgeml.errors import EdgemlError, EngineError, MeasureError
from edgeml.measure import Measurement, Throughput, measurement_to_json
from edgeml.runtime import Profiler
from edgeml.stopwatch import drawn, latency_ms, peak_bytes, resident_bytes, run_times, timed
from edgeml.targets import host
from edgeml.telemetry.machine import Meter

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from edgeml.arrays import Array
    from edgeml.runtime import Runtime, RuntimeOptions
    from edgeml.tensors import TensorSpec

SEED: Final = 0
PROFILE_S: Final = 0.5
"""Time that operators are timed for."""
PROFILE_RUNS: Final = (5, 50)
"""Fewest and most runs in which they are, whatever the time."""


def main(request: dict[str, Any], say: Callable[[dict[str, Any]], None]) -> None:
    """Measure what ``request`` names, and say so."""
    try:
        say(_measure(request, say))
    except EdgemlError as error:
        say({"error": str(error)})


def _measure(request: dict[str, Any], say: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    machine = host().name
    plugins.names(plugins.RUNTIME_GROUP)  # the search for entry points is not the engine's import
    memory_before = resident_bytes()
    say({"stage": "was imported"})
    import_ms, runtime = timed(lambda: plugins.runtime(request["runtime"]))
    options = runtime.options(request["options"])
    artifact = Path(request["artifact"])
    say({"stage": "loaded the model"})
    load_ms, session = timed(lambda: runtime.load(artifact, options))
    inputs = {
        spec.name: _sample(spec, request["shapes"].get(spec.name), np.random.default_rng(SEED))
        for spec in session.inputs
    }
    say({"stage": "ran the model"})
    meter = Meter()
    meter.sample()
    warmup, times_ns = run_times(session.run, inputs, request["seconds"], request["runs"])
    meter.sample()
    seen = meter.cut()
    peak = peak_bytes() - memory_before
    session.close()
    measurement = Measurement(
        runtime=runtime.name,
        runtime_version=runtime.version,
        artifact=request["artifact"],
        threads=options.threads,
        warmup=warmup,
        runs=len(times_ns),
        latency_ms=latency_ms(times_ns),
        load_ms=load_ms,
        import_ms=import_ms,
        peak_memory_bytes=peak,
        machine=machine,
        emulated=emulated(),
        throughput=(Throughput(options.threads, len(times_ns) / (sum(times_ns) / 1e9)),),
        temperature_celsius=seen["temperature_celsius"].max if "temperature_celsius" in seen else None,
        cpu_frequency_hertz=seen["cpu_frequency_hertz"].min if "cpu_frequency_hertz" in seen else None,
        throttled=seen["throttled"].max > 0 if "throttled" in seen else None,
    )
    answer: dict[str, Any] = {"measurement": measurement_to_json(measurement)}
    if request["profile"]:
        say({"stage": "profiled the model"})
        runs = round(1000.0 * PROFILE_S / measurement.latency_ms.p50)
        answer |= _profiled(
            runtime, artifact, inputs, options, min(max(runs, PROFILE_RUNS[0]), PROFILE_RUNS[1])
        )
    return answer


def _profiled(
    runtime: Runtime, artifact: Path, inputs: Mapping[str, Array], options: RuntimeOptions, runs: int
) -> dict[str, Any]:
    """Time the operators, or say why not: what was measured before stays."""
    if not isinstance(runtime, Profiler):
        return {"note": f"{runtime.name} cannot time single operators"}
    try:
        return {"operators": [asdict(part) for part in runtime.profile(artifact, inputs, options, runs)]}
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
    return drawn(spec, shape, random)


if __name__ == "__main__":
    with Path(sys.argv[2]).open("a", buffering=1) as answers:
        main(json.loads(sys.argv[1]), lambda part: print(json.dumps(part), file=answers))
