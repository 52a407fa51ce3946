"""Latency, load time and memory of artifacts: `edgeml bench` in fresh processes, here or elsewhere."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from edgeml import plugins
from edgeml.errors import MeasureError
from edgeml.measure import Measurement, measurement_from_json
from edgeml.processes import run_command
from edgeml.words import RuntimeName

TIMEOUT_S: Final = 600.0
"""For one file; models that take a second an inference still finish."""

TIMEOUT_ELSEWHERE_S: Final = 1800.0
"""The same with the way there: over a serial line a model of 1 MB takes two minutes."""
HERE: Final = "local:"
SECONDS: Final = 0.3
"""Time that each file runs for: 50 inferences of the slowest usual models, thousands of the fast ones."""

Result = Measurement | MeasureError


@dataclass(frozen=True, slots=True)
class Job:
    """A file to measure."""

    name: str
    runtime: RuntimeName
    artifact: Path
    options: Mapping[str, str]
    threads: int = 1


def measure(jobs: Sequence[Job], progress: Callable[[str], None], url: str = HERE) -> dict[str, Result]:
    """Measure files one after the other, each in a fresh process; one that fails does not stop the others.

    Args:
        jobs: the files.
        progress: is called with what is being done.
        url: of the machine to measure on, as any transport takes it; edgeml must be there.
    """
    words = ("--seconds", f"{SECONDS:g}")
    found = benched(jobs, lambda names: progress(f"measure {names}"), words, url)
    return {name: _entry(entry) for name, entry in found.items()}


def benched(
    jobs: Sequence[Job], tell: Callable[[str], None], words: Sequence[str], url: str = HERE
) -> dict[str, Mapping[str, Any] | MeasureError]:
    """Run ``edgeml bench`` with these words; gives each file's entry of ``--json``, or why there is none.

    ``tell`` is called with the names of the files that come next.
    """
    results: dict[str, Mapping[str, Any] | MeasureError] = {}
    batches: dict[tuple[str, ...], list[Job]] = {}
    for job in jobs:
        batches.setdefault(_options(job), []).append(job)
    elsewhere = [] if url == HERE else ["--on", url]
    timeout_s = TIMEOUT_S if url == HERE else TIMEOUT_ELSEWHERE_S
    for options, batch in batches.items():
        tell(", ".join(job.name for job in batch))
        # -P: a file of the user's that is called like an engine is not imported in its place
        argv = [sys.executable, "-P", "-m", "edgeml", "bench"]
        argv += [*(str(job.artifact.absolute()) for job in batch), *options]
        argv += [*words, "--json", *elsewhere]
        limit_s = timeout_s * len(batch)
        done = run_command(argv, limit_s, leashed=True)
        if done is None:
            late = f"edgeml bench did not end within {limit_s:g} s and was killed"
            results |= {job.name: MeasureError(f"{job.name}: {late}") for job in batch}
        else:
            results |= _read(batch, done.exit_code, done.stdout, done.stderr)
    return results


def _options(job: Job) -> tuple[str, ...]:
    """Give the arguments for a job's engine options; only threads where they are the driver's own defaults.

    Files with the same arguments share one command, which picks each file's runtime by its format.
    """
    driver, threads = plugins.runtime(job.runtime), ("--threads", str(job.threads))
    if driver.options(job.options) == driver.options({}):
        return threads
    options = (word for pair in job.options.items() for word in ("--option", "=".join(pair)))
    return ("--runtime", job.runtime, *options, *threads)


def _read(
    batch: Sequence[Job], exit_code: int, stdout: bytes, stderr: bytes
) -> dict[str, Mapping[str, Any] | MeasureError]:
    try:
        document: Any = json.loads(stdout)
        entries = document["results"]
        return {job.name: entry for job, entry in zip(batch, entries, strict=True)}
    except (ValueError, KeyError, TypeError):
        lines = stderr.decode(errors="replace").strip().splitlines()
        why = lines[-1] if lines else f"exit code {exit_code}"
        return {job.name: MeasureError(f"{job.name} could not be measured: {why}") for job in batch}


def _entry(entry: Mapping[str, Any] | MeasureError) -> Result:
    if isinstance(entry, MeasureError):
        return entry
    try:
        return measurement_from_json(entry)
    except MeasureError as error:
        return error
