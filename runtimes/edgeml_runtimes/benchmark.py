"""Measures one artifact in fresh processes: the side that starts them.

Each number of threads has a process of its own, so that imports, memory and thread pools of one
measurement do not reach into another. A process that crashes or hangs is a result with a reason.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from edgeml.errors import MeasureError
from edgeml.measure import Measurement, measurement_from_json, measurement_to_json
from edgeml.runtime import OperatorTime

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SECONDS: Final = 0.5
"""How long one process runs the model when nothing else is said."""
TIMEOUT_S: Final = 300.0


@dataclass(frozen=True, slots=True)
class Job:
    """What to measure, and how long."""

    artifact: str
    runtime: str
    options: Mapping[str, str] = field(default_factory=dict)
    threads: tuple[int, ...] = ()
    """Latency is taken with the first, throughput with each; empty for what the options say."""
    seconds: float = SECONDS
    runs: int | None = None
    """So many runs instead of so many seconds."""
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Shapes for inputs with free dimensions; a free first dimension alone is 1."""
    profile: bool = False
    timeout_s: float = TIMEOUT_S
    variant: str | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """A measurement, or the reason why there is none or why something of it is missing."""

    job: Job
    measurement: Measurement | None = None
    operators: tuple[OperatorTime, ...] = ()
    reason: str = ""


def measure(job: Job) -> Result:
    """Measure one artifact; a failure of the model or its engine is a result, not an error."""
    choices = [{**job.options, "threads": str(count)} for count in job.threads] or [dict(job.options)]
    try:
        found = [
            _in_fresh_process(job, options, profile=job.profile and place == 0)
            for place, options in enumerate(choices)
        ]
    except MeasureError as error:
        return Result(job, reason=str(error))
    measurements = [measurement_from_json(part["measurement"]) for part in found]
    throughput = tuple(part for measurement in measurements for part in measurement.throughput)
    operators = tuple(OperatorTime(**part) for part in found[0].get("operators", ()))
    measurement = replace(measurements[0], throughput=throughput)
    return Result(job, measurement, operators, found[0].get("note", ""))


def result_to_json(result: Result) -> dict[str, Any]:
    """Give one entry of ``results`` in ``edgeml bench --json``."""
    if result.measurement is None:
        empty: dict[str, Any] = dict.fromkeys(Measurement.__dataclass_fields__)
        row = empty | {"runtime": result.job.runtime, "artifact": result.job.artifact, "throughput": []}
    else:
        row = measurement_to_json(result.measurement)
    row |= {"variant": result.job.variant, "status": "ok" if result.measurement else "failed"}
    row["reason"] = result.reason
    if result.job.profile:
        row["operators"] = [asdict(part) for part in result.operators]
    return row


def _in_fresh_process(job: Job, options: Mapping[str, str], *, profile: bool) -> dict[str, Any]:
    request = {
        "artifact": job.artifact,
        "runtime": job.runtime,
        "options": dict(options),
        "seconds": job.seconds,
        "runs": job.runs,
        "shapes": {name: list(shape) for name, shape in job.shapes.items()},
        "profile": profile,
    }
    with tempfile.TemporaryDirectory(prefix="edgeml-bench-") as folder:
        answer, log = Path(folder) / "answer", Path(folder) / "log"
        answer.touch()
        with log.open("wb") as output:
            argv = [sys.executable, "-P", "-m", "edgeml_runtimes.measured", json.dumps(request), str(answer)]
            exit_code = _run(argv, output, job)
        lines = [json.loads(line) for line in answer.read_text().splitlines() if line.endswith("}")]
        last = lines[-1] if lines else {"stage": "started"}
        if "error" in last:
            raise MeasureError(last["error"])
        if exit_code or "measurement" not in last:
            raise MeasureError(
                _death(job, last.get("stage", "?"), exit_code, log.read_text(errors="replace"))
            )
        return dict(last)


def _run(argv: Sequence[str], output: Any, job: Job) -> int:
    # Same process group: whoever kills this process's group reaches the child as well.
    child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
    try:
        return child.wait(job.timeout_s)
    except subprocess.TimeoutExpired:
        raise MeasureError(
            f"{job.artifact} on {job.runtime}: did not end within {job.timeout_s:g} s and was killed; "
            "ask for fewer --runs or more --timeout"
        ) from None
    finally:
        child.kill()
        child.wait()


def _death(job: Job, stage: str, exit_code: int, log: str) -> str:
    how = f"ended with exit code {exit_code}"
    if exit_code < 0:
        how = f"crashed ({signal.Signals(-exit_code).name})"
    tail = " ".join(log.split())[-300:]
    return f"{job.artifact}: {job.runtime} {how} while it {stage}" + (f": {tail}" if tail else "")
