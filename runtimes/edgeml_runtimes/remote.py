"""``edgeml bench --on URL`` and ``edgeml run --on URL``."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from edgeml.bundle import is_bundle, open_bundle
from edgeml.errors import MeasureError, UsageError
from edgeml.measure import measurement_from_json
from edgeml.remote import RUN_TIMEOUT_S
from edgeml.runtime import OperatorTime
from edgeml_runtimes.benchmark import Job, Result
from edgeml_runtimes.jobs import chosen_variants

if TYPE_CHECKING:
    from edgeml.remote import RemoteEdgeml
    from edgeml.transport import CommandResult

_START_TIMEOUT_S: Final = 120.0
"""For Python and edgeml to start from a slow card."""


def bench_on(
    remote: RemoteEdgeml,
    models: Sequence[Path],
    common: Job,
    variants: Sequence[str],
    show: Callable[[str], None],
) -> list[Result]:
    """Measure files there, all with one call of ``edgeml bench``.

    Raises:
        MeasureError: edgeml there gave no result that can be read.
        UsageError: it refuses an option.
    """
    placed = [remote.put(model) for model in models]
    count = sum(
        len(chosen_variants(open_bundle(model), variants, common.runtime)) if is_bundle(model) else 1
        for model in models
    )
    processes = count * max(1, len(common.threads))
    show(f"measuring on {remote.url}")
    done = remote.edgeml(
        ["bench", *placed, *_bench_options(common, variants), "--json"],
        _START_TIMEOUT_S + processes * (common.timeout_s + _START_TIMEOUT_S),
    )
    try:
        document = json.loads(done.stdout)
        rows = document["results"]
    except (ValueError, KeyError, TypeError):
        raise remote.failure(done) from None
    return [_result(remote, row, common) for row in rows]


def _bench_options(common: Job, variants: Sequence[str]) -> list[str]:
    words = [word for name in variants for word in ("--variant", name)]
    words += ["--runtime", common.runtime] if common.runtime else []
    words += [word for key, value in common.options.items() for word in ("--option", f"{key}={value}")]
    words += ["--threads", ",".join(map(str, common.threads))] if common.threads else []
    words += ["--seconds", f"{common.seconds:g}"]
    words += ["--runs", str(common.runs)] if common.runs is not None else []
    for name, shape in common.shapes.items():
        words += ["--shape", f"{name}={','.join(map(str, shape))}"]
    words += ["--profile"] if common.profile else []
    return [*words, "--timeout", f"{common.timeout_s:g}"]


def _result(remote: RemoteEdgeml, row: Mapping[str, Any], common: Job) -> Result:
    artifact = remote.named(str(row.get("artifact", "")))
    variant = row.get("variant")
    job = replace(common, artifact=artifact, runtime=str(row.get("runtime", "")), variant=variant)
    reason = remote.named(str(row.get("reason", "")))
    if row.get("status") != "ok":
        return Result(job, reason=reason)
    try:
        measurement = replace(measurement_from_json(row), artifact=artifact)
        operators = tuple(OperatorTime(**part) for part in row.get("operators", ()))
    except (MeasureError, TypeError) as error:
        return Result(job, reason=f"on {remote.url}: {error}")
    return Result(job, measurement, operators, reason)


def run_on(
    remote: RemoteEdgeml,
    model: str,
    data: str,
    options: Sequence[str],
    *,
    config: Path | None,
    output: Path | None,
    show: Callable[[str], None],
) -> CommandResult:
    """Run a model on samples there; ``output`` is written here.

    Raises:
        EngineError, UsageError: edgeml there says that it failed.
    """
    # a model that is no file here is the name of one that is installed there
    arguments = [remote.put(Path(model)) if Path(model).exists() else model, _put_data(remote, data)]
    if config is not None:
        arguments += ["--config", remote.put(config)]
    there = None if output is None else remote.scratch(f"results{output.suffix}")
    if there is not None:
        arguments += ["--output", there]
    show(f"running on {remote.url}")
    done = remote.edgeml(["run", *arguments, *options], RUN_TIMEOUT_S)
    if done.exit_code:
        raise remote.failure(done)
    if there is not None and output is not None:
        remote.get(there, output)
    return done


def _put_data(remote: RemoteEdgeml, data: str) -> str:
    """Copy samples there; behind the file may stand which arrays of it are meant."""
    if Path(data).exists():
        return remote.put(Path(data))
    file, colon, arrays = data.rpartition(":")
    if not colon or not Path(file).exists():
        raise UsageError(f"{data}: there is no such file or folder to take to {remote.url}")
    return f"{remote.put(Path(file))}:{arrays}"
