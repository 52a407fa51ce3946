"""What a run of the Edge TPU compiler gives. Light to import: every command line imports its time limit."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from pathlib import Path

    from edgeml_converters.coral.check import Check
    from edgeml_converters.coral.compiler_output import Said
    from edgeml_converters.coral.compiler_place import Compiler
    from edgeml_converters.coral.cross_check import Disagreement
    from edgeml_converters.coral.inspect import Compiled

TIMEOUT_S: Final = 600.0
"""For all attempts together."""
SUFFIX: Final = "_edgetpu"
COMPILED_FILE: Final = f"model{SUFFIX}.tflite"
"""What the compiled file is called in a bundle."""

Outcome = Literal["compiled", "internal_error", "refused", "timeout", "crashed", "failed"]


@dataclass(frozen=True, slots=True)
class Attempt:
    """One run of the compiler."""

    options: tuple[str, ...]
    outcome: Outcome
    exit_code: int | None
    """``None``: it was killed at the time limit."""
    seconds: float
    message: str
    """What it said of its failure, or ours where it said nothing; empty where it compiled."""

    @property
    def searched(self) -> bool:
        """Whether it was told to compile a part where it cannot compile the whole."""
        return "--search_delegate" in self.options


@dataclass(frozen=True, slots=True)
class Compilation:
    """What the compiler made."""

    source: Path
    compiled: Compiled
    """Its path is in the folder that was given."""
    log: str
    machine: str
    compiler: Compiler
    attempts: tuple[Attempt, ...]
    """The last one compiled."""
    said: Said
    predicted: Check
    disagreements: tuple[Disagreement, ...]

    @property
    def total(self) -> int:
        """How many operators the source has."""
        return self.predicted.total

    @property
    def mapped(self) -> int:
        """How many of them the compiled file has no longer: they run on the Edge TPU."""
        return self.total - len(self.compiled.on_cpu)

    def mapping(self) -> dict[str, Any]:
        """Give what a variant of a bundle says of it."""
        return {
            "compiler": self.compiler.version,
            "min_runtime": self.compiled.min_runtime,
            "mapped": self.mapped,
            "total": self.total,
        }

    def to_json(self) -> dict[str, Any]:
        """Give what ``edgeml coral compile --json`` prints of it; docs/reference/json.md describes it."""
        said, compiled = self.said, self.compiled
        return {
            "compiler": {"path": self.compiler.path, "version": self.compiler.version, "on": self.machine},
            "attempts": [asdict(one) | {"options": list(one.options)} for one in self.attempts],
            "mapped": self.mapped,
            "total": self.total,
            "subgraphs": len({one.operator for one in compiled.packages}),
            "operators": [asdict(row) for row in said.rows],
            "cpu_operators": [{"index": one.index, "name": one.kind} for one in compiled.on_cpu],
            "parameters": {
                "on_chip_bytes": compiled.on_chip_bytes,
                "streamed_bytes": compiled.streamed_bytes,
                "remaining_bytes": None if said.remaining is None else said.remaining.bytes,
            },
            "min_runtime": compiled.min_runtime,
            "predicted": {
                "mapped": self.predicted.placements.mapped,
                "unknown": self.predicted.placements.count("unknown"),
            },
            "disagreements": [asdict(one) for one in self.disagreements],
        }
