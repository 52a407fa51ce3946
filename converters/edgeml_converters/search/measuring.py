"""Latency, load time and memory of the rows that were made."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from edgeml import plugins
from edgeml.errors import MeasureError
from edgeml.findings import Finding
from edgeml.measure import EMULATED, Measurement
from edgeml.targets import host
from edgeml_converters.evaluate import latency
from edgeml_converters.formats.files import hash_tree
from edgeml_converters.search import findings
from edgeml_converters.search.engine_options import alternatives, taken
from edgeml_converters.search.objective import EQUAL_LATENCY
from edgeml_converters.search.objective import latency as cost
from edgeml_converters.variants.request import Request
from edgeml_converters.variants.rows import Made, Row
from edgeml_converters.variants.step_cache import content_key
from edgeml_converters.variants.workspace import Workspace

ROUNDS: Final = 3
"""Measurements, in turns, of each file that comes near the quickest."""
CONTENDS: Final = 1.3
"""Single measurements beside other work were off by up to that."""
RESUMED_WITHIN_S: Final = 86400.0
"""A measurement of the day before was taken on a machine that has changed since, for all anybody knows."""


def measured_by(rows: Sequence[Row]) -> str:
    """Name the class of the machine that measured; of this one if none did."""
    return next((row.measured.machine.split()[0] for row in rows if row.measured.machine), host().name)


def measured(made: Made, space: Workspace, request: Request) -> Made:
    """Measure each usable row in fresh processes, on the machine and with the threads that were asked for.

    Of several numbers of threads the fewest are taken that come within 5 % of the quickest.

    Raises:
        KeyboardInterrupt: it was interrupted, and nothing is searched, or the search was interrupted before.
    """
    jobs = {row.name: _jobs(row, request) for row in made.rows}
    results: dict[str, latency.Result] = {}
    interrupted = made.interrupted

    def told() -> list[Row]:
        return [_with_measurement(row, best(jobs[row.name], results)) for row in made.rows]

    try:
        _measure([job for several in jobs.values() for job in several], results, space, request)
        rows = told()
        if request.searches:
            _again(rows, jobs, results, space, request)
            rows = told()
            rows = _with_engine_options(rows, made.rows, space, request)
    except KeyboardInterrupt:
        if interrupted or not request.searches:
            raise
        interrupted = True
        rows = told()
    return Made(tuple(rows), interrupted)


def _again(
    rows: Sequence[Row],
    jobs: Mapping[str, Sequence[latency.Job]],
    results: dict[str, latency.Result],
    space: Workspace,
    request: Request,
) -> None:
    """Measure in further rounds what comes near the quickest of its runtime, and take the median round.

    What else the machine does in one round then decides nothing. Where the way to the machine is long, and
    for a run that takes earlier figures, there is one round.
    """
    if request.measure_on != latency.HERE or request.resumes:
        return
    near = contenders([row for row in rows if request.gates.accuracy_broken_by(row) is None])
    wanted = {row.name: row.measured.threads for row in near}
    again = [job for name, threads in wanted.items() for job in jobs[name] if job.threads == threads]
    rounds = [results, *(latency.measure(again, space.progress) for _ in range(ROUNDS - 1 if again else 0))]
    for job in again:
        found = [one for one in (known.get(job.name) for known in rounds) if isinstance(one, Measurement)]
        median = sorted(found, key=lambda one: one.latency_ms.p50)[len(found) // 2]
        results[job.name] = median
        space.judgements.keep_value(_key(job, request), median)


def contenders(rows: Sequence[Row]) -> list[Row]:
    """Give the rows of each runtime that come near its quickest, where there are several rows in all."""
    timed = [row for row in rows if row.status == "ok" and row.measured.latency_ms is not None]
    quickest = {
        row.runtime: min(map(cost, (one for one in timed if one.runtime == row.runtime))) for row in timed
    }
    near = [row for row in timed if cost(row) <= CONTENDS * quickest[row.runtime]]
    return near if len(near) > 1 else []


def _with_engine_options(
    rows: Sequence[Row], unmeasured: Sequence[Row], space: Workspace, request: Request
) -> list[Row]:
    """Try the quickest row of each runtime with other options of its engine, and take what is better.

    What a measurement is found to be, noisy say, goes with it: a new one is put to the row as it was before.
    """
    before = {row.name: row for row in unmeasured}
    results: dict[str, latency.Result] = {}
    tried = []
    for row in alternatives(rows):
        threads = row.measured.threads or 1
        job = latency.Job(
            f"{row.name} with other engine options", row.runtime, row.artifact or Path(), row.options, threads
        )
        _measure([job], results, space, request)
        if isinstance(results.get(job.name), Measurement):
            bare = replace(before[row.name], options=row.options)
            tried.append(_with_measurement(bare, results[job.name]))
    return taken(rows, tried)


def _jobs(row: Row, request: Request) -> list[latency.Job]:
    """List what to measure: nothing of what is compiled for an accelerator that this machine has not."""
    here = request.measure_on == latency.HERE
    lacks = here and row.accelerator is not None and row.accelerator not in host().accelerators
    if row.status != "ok" or row.artifact is None or lacks:
        return []
    names = {count: f"{row.name} (threads={count})" for count in request.threads}
    if len(names) == 1:
        names = dict.fromkeys(request.threads, row.name)
    return [latency.Job(name, row.runtime, row.artifact, row.options, count) for count, name in names.items()]


def _measure(
    jobs: Sequence[latency.Job], results: dict[str, latency.Result], space: Workspace, request: Request
) -> None:
    """Put a result for each job into ``results``; what is known before an interrupt stays there."""
    keys = {job.name: _key(job, request) for job in jobs}
    if request.resumes:
        for name, key in keys.items():
            known = space.judgements.find_value(key, Measurement, within_s=RESUMED_WITHIN_S)
            results |= {} if known is None else {name: known}
    left = [job for job in jobs if job.name not in results]
    # elsewhere the way there takes minutes: each file is measured and kept for itself
    here = request.measure_on == latency.HERE
    for batch in [left] if here else [[job] for job in left]:
        found = latency.measure(batch, space.progress, request.measure_on) if batch else {}
        results |= found
        for name, result in found.items():
            if isinstance(result, Measurement):
                space.judgements.keep_value(keys[name], result)


def _key(job: latency.Job, request: Request) -> str:
    return content_key(
        {
            "artifact": hash_tree(job.artifact),
            "options": dict(job.options),
            "threads": job.threads,
            "on": [request.measure_on, platform.node(), host().name],
            "engine": plugins.runtime(job.runtime).version,
        }
    )


def best(jobs: Sequence[latency.Job], results: Mapping[str, latency.Result]) -> latency.Result | None:
    """Give the measurement with the fewest threads of those near the quickest, else what went wrong."""
    found = [results[job.name] for job in jobs if job.name in results]
    known = [one for one in found if isinstance(one, Measurement)]
    if not known:
        return next(iter(found), None)
    quickest = min(one.latency_ms.p50 for one in known)
    near = [one for one in known if one.latency_ms.p50 <= EQUAL_LATENCY * quickest]
    return min(near, key=lambda one: one.threads)


def _with_measurement(row: Row, result: latency.Result | None) -> Row:
    if result is None:
        return row
    if isinstance(result, MeasureError):
        finding = Finding(
            "not-measured", "warning", row.name, str(result), "run edgeml bench on the file to see more"
        )
        return row.with_findings(finding)
    measured = replace(
        row.measured,
        latency_ms=None if result.emulated else result.latency_ms,
        load_ms=None if result.emulated else result.load_ms,
        peak_memory_bytes=result.peak_memory_bytes,
        machine=result.machine,
        threads=result.threads,
        temperature_celsius=result.temperature_celsius,
        cpu_frequency_hertz=result.cpu_frequency_hertz,
    )
    row = replace(row, measured=measured, runtime_version=result.runtime_version)
    if result.emulated:
        finding = Finding(
            "emulated",
            "info",
            row.name,
            f"{EMULATED}: this is no latency of a {result.machine}",
            "measure on the board: --measure ssh://USER@BOARD",
        )
        return row.with_findings(finding)
    if result.throttled:
        seen = f"{result.machine} was slowed down, by heat or a weak supply, while it was measured"
        slow = Finding("throttled", "warning", row.name, seen, "cool or feed it better, and measure again")
        row = row.with_findings(slow)
    return row.with_findings(*findings.noisy(row))
