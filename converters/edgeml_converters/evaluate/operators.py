"""Times of a model's operators: `edgeml bench --profile` in fresh processes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from edgeml.errors import MeasureError
from edgeml.runtime import OperatorTime
from edgeml_converters.evaluate.latency import Job, benched

RUNS: Final = "5"
"""Of the model as a whole; the profiler has its own number."""


@dataclass(frozen=True, slots=True)
class Profile:
    """What one file's operators took, in order of execution; a profiler slows the whole down."""

    operators: tuple[OperatorTime, ...]
    reason: str = ""
    """Why there are none."""


def profile(jobs: Sequence[Job], progress: Callable[[str], None]) -> dict[str, Profile]:
    """Profile files one after the other on this machine; what cannot be profiled says why."""
    found = benched(
        jobs, lambda names: progress(f"time the operators of {names}"), ("--runs", RUNS, "--profile")
    )
    return {name: _profile(entry) for name, entry in found.items()}


def _profile(entry: Mapping[str, Any] | MeasureError) -> Profile:
    if isinstance(entry, MeasureError):
        return Profile((), str(entry))
    if entry.get("emulated"):
        return Profile((), "this machine is emulated: its times say nothing")
    operators = tuple(OperatorTime(**part) for part in entry.get("operators", ()))
    return Profile(operators, "" if operators else str(entry.get("reason") or "the engine told no times"))
