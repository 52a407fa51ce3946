"""The step graph: which steps lead from one state of a model to another, and what they lack here."""

from __future__ import annotations

import heapq
import importlib.util
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from typing import Final

from edgeml.converter import ConversionStep, Requirement, State
from edgeml.errors import PlanError

LACKING_COST: Final = 1e6
"""Added per missing requirement, so that any path with fewer of them wins whatever its steps cost."""

WORKSTATION: Final = frozenset(
    {"ai-edge-litert", "ai-edge-quantizer", "nncf", "onnx", "onnxruntime", "onnxslim", "openvino"}
)
"""The distributions that one extra brings, in versions that fit each other."""


@dataclass(frozen=True, slots=True)
class Missing:
    """A requirement that this machine lacks, and the command that brings it."""

    step: str
    requirement: Requirement
    reason: str
    command: str


@dataclass(frozen=True, slots=True)
class Plan:
    """The cheapest faithful path; ``missing`` is empty when it can be run here and now."""

    source: State
    goal: State
    steps: tuple[ConversionStep, ...]
    missing: tuple[Missing, ...]

    @property
    def runnable(self) -> bool:
        """Whether nothing is missing."""
        return not self.missing

    @property
    def cost(self) -> float:
        """The sum of the steps' costs."""
        return sum(step.cost for step in self.steps)

    @property
    def lacks(self) -> str:
        """What is missing and how to get it, in one line."""
        commands: dict[str, list[str]] = {}
        for item in self.missing:
            what = f"the worker {item.requirement.name}" if item.requirement.kind == "worker" else ""
            commands.setdefault(item.command, []).append(what or item.requirement.name)
        needs = (f"{', '.join(dict.fromkeys(names))}: {command}" for command, names in commands.items())
        return f"needs {'; '.join(needs)}" if commands else ""

    def require_runnable(self) -> Plan:
        """Give the plan itself.

        Raises:
            PlanError: something is missing; names each step, what it lacks and how to get it.
        """
        if self.missing:
            raise PlanError(_lacks(self))
        return self


@dataclass(frozen=True, slots=True)
class Availability:
    """Whether a requirement is here: ``None``, or the reason why it is not. Imports no tool."""

    distribution: Callable[[str], str | None]
    worker: Callable[[str], str | None]

    def reason(self, requirement: Requirement) -> str | None:
        """Say why a requirement cannot be used, or ``None`` when it can."""
        look = self.worker if requirement.kind == "worker" else self.distribution
        return look(requirement.name)


def this_machine() -> Availability:
    """Give what is installed here; each requirement is looked up once."""
    return Availability(cache(_distribution_reason), cache(_worker_reason))


def plan(source: State, goal: State, steps: Iterable[ConversionStep], available: Availability) -> Plan:
    """Find the cheapest faithful path from ``source`` to ``goal``.

    Faithful: the numbers change their scheme at most once, and only from float32, so that a
    quantization always starts from the float model, and whatever follows it is a translation of the
    same numbers into another format. Among faithful paths one that lacks less comes first.

    Raises:
        PlanError: no steps make such a path, whatever is installed.
    """
    known = [step for step in steps if _may_be_used(step, source, goal)]
    path = _cheapest(source, goal, known, available)
    if path is None:
        raise PlanError(_no_path(source, goal, known))
    missing = tuple(found for step in path for found in _missing(step, available))
    return Plan(source, goal, path, missing)


def _may_be_used(step: ConversionStep, source: State, goal: State) -> bool:
    schemes = (step.source.scheme, step.target.scheme)
    if source.scheme == goal.scheme:
        return schemes == (goal.scheme, goal.scheme)
    return source.scheme == "float32" and schemes in {
        ("float32", "float32"),
        ("float32", goal.scheme),
        (goal.scheme, goal.scheme),
    }


def _cheapest(
    source: State, goal: State, steps: Sequence[ConversionStep], available: Availability
) -> tuple[ConversionStep, ...] | None:
    """Search as Dijkstra did; the counter keeps the heap from comparing paths."""
    count = 0
    heap: list[tuple[float, int, State, tuple[ConversionStep, ...]]] = [(0.0, count, source, ())]
    done: set[State] = set()
    while heap:
        cost, _, state, path = heapq.heappop(heap)
        if state == goal:
            return path
        if state in done:
            continue
        done.add(state)
        for step in steps:
            if step.source == state and step.target not in done:
                count += 1
                lacking = LACKING_COST * sum(1 for _ in _missing(step, available))
                heapq.heappush(heap, (cost + step.cost + lacking, count, step.target, (*path, step)))
    return None


def _missing(step: ConversionStep, available: Availability) -> Iterable[Missing]:
    for requirement in step.requires:
        reason = available.reason(requirement)
        if reason is not None:
            yield Missing(step.name, requirement, reason, install_command(requirement))


def install_command(requirement: Requirement) -> str:
    """Give the command that brings a requirement."""
    if requirement.kind == "worker":
        return f"edgeml workers install {requirement.name}"
    if requirement.name in WORKSTATION:
        return "pip install 'edgeml-core[workstation]'"
    return f"pip install {requirement.name}"


def _lacks(plan_: Plan) -> str:
    names = " → ".join([str(plan_.source), *(str(step.target) for step in plan_.steps)])
    lines = [f"no way from {plan_.source} to {plan_.goal} can be run here. The path {names} lacks:"]
    lines += [
        f"  {item.step}: {item.requirement.kind} {item.requirement.name} ({item.reason}); "
        f"get it with: {item.command}"
        for item in plan_.missing
    ]
    return "\n".join(lines)


def _no_path(source: State, goal: State, steps: Sequence[ConversionStep]) -> str:
    if source.scheme not in {"float32", goal.scheme}:
        return (
            f"{source} cannot become {goal}: the model is quantized already, and its numbers are not "
            f"changed a second time. Start from the float32 model"
        )
    leaving = sorted({str(step.target) for step in steps if step.source == source})
    arriving = sorted({str(step.source) for step in steps if step.target == goal})
    return (
        f"no conversion steps lead from {source} to {goal}. "
        f"From {source} there is a step to: {', '.join(leaving) or 'nothing'}; "
        f"to {goal} there is a step from: {', '.join(arriving) or 'nothing'}"
    )


def is_offered(goal: State, steps: Iterable[ConversionStep]) -> bool:
    """Say whether any step makes this scheme in this format of another."""
    return any(step.target == goal and step.source.scheme != goal.scheme for step in steps)


def no_way(runtime: str, source: State, goal: State, steps: Iterable[ConversionStep]) -> str:
    """Say in one line why no path can lead to ``goal``."""
    if source.scheme not in {"float32", goal.scheme}:
        return f"the model is {source.scheme} already; start from the float32 model"
    if not is_offered(goal, steps):
        return f"{runtime} has no {goal.scheme}; docs/reference/schemes.md"
    return f"no conversion steps lead from {source} to {goal}; see: edgeml plan"


def _distribution_reason(name: str) -> str | None:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        # a build of the same engine under another name (tensorflow-cpu, onnxruntime-gpu) serves as well
        if importlib.util.find_spec(name.replace("-", "_")) is None:
            return "not installed"
    return None


def _worker_reason(name: str) -> str | None:
    from edgeml_converters.workers.catalogue import status

    found = status(name)
    return None if found.usable else found.reason
