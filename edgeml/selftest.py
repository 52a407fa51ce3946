"""The self-test of a variant on the machine it landed on: the side that starts it. Light to import.

A process of its own loads the variant, runs the golden samples, and is timed. That it crashes, hangs, is
killed for lack of memory or finds no engine is a result with a reason, not an error.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, Final, Literal

from edgeml.figures import readable_size
from edgeml.health import HealthPolicy
from edgeml.manifest import Latency
from edgeml.processes import ended_within, kill_session

Reason = Literal["parity", "latency", "memory", "selftest_crash", "selftest_timeout", "engine", "manifest"]
DETAIL_LIMIT: Final = 2000
_LOG_TAIL_BYTES: Final = 4096
_GRACE_S: Final = 10.0
"""A process whose parent was killed ends by itself so long after its time."""


@dataclass(frozen=True, slots=True)
class SelftestResult:
    """How one variant did on this machine."""

    variant: str
    passed: bool
    reason: Reason | None = None
    """Why it did not pass; the words are those of a deployment's reason."""
    detail: str = ""
    """For people."""
    latency_ms: Latency | None = None
    """Of one caller, with the options the variant is loaded with."""
    load_ms: float | None = None
    """From the folder to a model that can run, its files' hashes included, the engine's import excluded."""
    peak_memory_bytes: int | None = None
    """Growth of the peak resident set from before the engine was imported."""
    emulated: bool = False
    """This machine is emulated: the limit on latency was held, and the times are not told."""


def run_selftest(
    folder: Path, variant: str, policy: HealthPolicy, *, timeout_s: float, python: str = sys.executable
) -> SelftestResult:
    """Test one variant of a release folder or bundle in a fresh process; never raises for what it finds.

    Args:
        folder: a release folder, a bundle, or an extracted one.
        variant: its name.
        policy: the limits on latency and memory.
        timeout_s: after which the process and all that it started is killed.
        python: the interpreter that has the engine.
    """
    request = {"folder": str(folder.absolute()), "variant": variant, "alarm_s": timeout_s + _GRACE_S}
    with _scratch("answer") as answer, _scratch("log") as log:
        argv = [python, "-P", "-m", "edgeml.selftested", json.dumps(request), str(answer.fileno())]
        try:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=(answer.fileno(),),
                start_new_session=True,
            )
        except OSError as error:
            return _failed(variant, "selftest_crash", f"cannot start {python}: {error}")
        try:
            ended = ended_within(process, timeout_s)
        finally:
            kill_session(process)
        said = _last_line(answer)
        if not ended:
            return _failed(
                variant,
                "selftest_timeout",
                f"did not end within {timeout_s:g} s and was killed while it {said['stage']}",
            )
        if "passed" not in said or (said["passed"] and process.returncode):
            return _death(variant, said.get("stage", "ended"), process.returncode, _tail(log))
    return _judged(variant, said, policy)


def _judged(variant: str, said: dict[str, Any], policy: HealthPolicy) -> SelftestResult:
    """Hold what the process found against the limits."""
    times = said.get("latency_ms")
    latency = None if times is None else Latency(**times)
    is_emulated = bool(said.get("emulated"))
    result = SelftestResult(
        variant,
        said["passed"],
        said.get("reason"),
        said["detail"][:DETAIL_LIMIT],
        None if is_emulated else latency,
        None if is_emulated else said.get("load_ms"),
        said.get("peak_memory_bytes"),
        is_emulated,
    )
    if not result.passed:
        return result
    limit_ms, limit_bytes = policy.selftest_max_latency_p95_ms, policy.selftest_max_memory_bytes
    if limit_ms is not None and latency is not None and latency.p95 > limit_ms:
        over = f"p95 is {latency.p95:.4g} ms, the limit {limit_ms:.4g} ms"
        over += "; on an emulated machine, whose times say nothing of the board" if is_emulated else ""
        return replace(result, passed=False, reason="latency", detail=over)
    if limit_bytes is not None and (result.peak_memory_bytes or 0) > limit_bytes:
        sizes = readable_size(result.peak_memory_bytes or 0), readable_size(limit_bytes)
        over = f"needs {sizes[0]} of memory, the limit is {sizes[1]}"
        return replace(result, passed=False, reason="memory", detail=over)
    return result


def _failed(variant: str, reason: Reason, detail: str) -> SelftestResult:
    return SelftestResult(variant, passed=False, reason=reason, detail=detail[:DETAIL_LIMIT])


def _death(variant: str, stage: str, exit_code: int, log: str) -> SelftestResult:
    if exit_code == -signal.SIGKILL:
        detail = f"was killed while it {stage}, most likely for lack of memory"
        return _failed(variant, "memory", detail)
    how = f"ended with exit code {exit_code}"
    if exit_code < 0:
        how = f"crashed ({signal.Signals(-exit_code).name})"
    detail = f"{how} while it {stage}" + (f": {log}" if log else "")
    return _failed(variant, "selftest_crash", detail)


# --- what the process says


def _scratch(name: str) -> IO[bytes]:
    """Give a file in memory: a full or read-only disk must not fail a self-test."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create(f"edgeml-selftest-{name}"), "w+b")
    return tempfile.TemporaryFile()


def _last_line(answer: IO[bytes]) -> dict[str, Any]:
    answer.seek(0)
    whole = [line for line in answer.read().splitlines() if line.endswith(b"}")]
    found: dict[str, Any] = json.loads(whole[-1]) if whole else {"stage": "started"}
    return found


def _tail(log: IO[bytes]) -> str:
    size = log.seek(0, os.SEEK_END)
    log.seek(max(0, size - _LOG_TAIL_BYTES))
    return " ".join(log.read().decode(errors="replace").split())[-DETAIL_LIMIT // 2 :]
