"""The last steps of a variant for the Edge TPU: rewrites of its graph, those that change something."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Final

from edgeml.converter import (
    Calibration,
    ConversionStep,
    QuantizerSettings,
    Requirement,
    State,
    StepRequest,
    StepResult,
)
from edgeml.errors import ParityError
from edgeml.findings import Finding
from edgeml.words import ARTIFACT_FILE, IoDtype
from edgeml_converters.coral.parity import require_same
from edgeml_converters.coral.rewrites.rewriting import REWRITES, Rewrite, apply
from edgeml_converters.variants.artifact import Artifact
from edgeml_converters.variants.step_runner import Executor

_TOOL: Final = "ai-edge-litert"
_STATE: Final = State("tflite", "int8_static")


@dataclass(frozen=True, slots=True)
class RewriteStep:
    """A rewrite as a step from a state to the same one, which no plan would contain."""

    rewrite: Rewrite
    io_dtype: IoDtype
    source: State = _STATE
    target: State = _STATE
    requires: tuple[Requirement, ...] = field(default=(Requirement("distribution", _TOOL),))
    cost: float = 0.0

    @property
    def name(self) -> str:
        """``coral-`` and the rewrite's; with the dtype, which decides what it makes."""
        return f"coral-{self.rewrite.name}-{self.io_dtype}"

    def changes(self, path: Path) -> bool:
        """Say whether the rewrite has something to do."""
        return bool(apply(self.rewrite, path, path.read_bytes(), self.io_dtype).changes)

    def run(self, request: StepRequest) -> StepResult:
        """Do the rewrite and run both files; raises as ``rewriting.rewritten``."""
        before = request.source.read_bytes()
        made = apply(self.rewrite, request.source, before, self.io_dtype)
        require_same(self.name, before, made.content, rounds=self.rewrite.rounds)
        artifact = request.output_dir / ARTIFACT_FILE["tflite"]
        artifact.write_bytes(made.content)
        return StepResult(
            artifact,
            findings=tuple(one.finding(request.source.name) for one in made.changes),
            notes=tuple(sentence for one in made.changes for sentence in one.changed),
            versions={_TOOL: metadata.version(_TOOL)},
        )


def with_rewrites(
    executor: Executor,
    steps: Sequence[ConversionStep],
    settings: QuantizerSettings,
    calibration: Calibration | None,
) -> Artifact:
    """Make an artifact by its planned steps, and each rewrite that it needs a step behind them.

    A rewrite that changes the results is left out, with a finding.

    Raises:
        EdgemlError: a planned step failed, or its result differs from its source (ParityError).
    """
    made = executor.make(steps, settings, calibration)
    left_out: list[Finding] = []
    for rewrite in REWRITES:
        step = RewriteStep(rewrite, settings.io_dtype)
        if not step.changes(made.path):
            continue
        try:
            made = executor.make((*steps, step), settings, calibration)
        except ParityError as error:
            left_out.append(_left_out(made.path, error))
        else:
            steps = (*steps, step)
    made.findings = tuple(dict.fromkeys((*made.findings, *left_out)))
    return made


def _left_out(path: Path, error: ParityError) -> Finding:
    return Finding(
        "edge-tpu-rewrite-left-out",
        "warning",
        path.name,
        f"{error}: this rewrite was left out, and fewer operators may be mapped",
        "nothing has to be done; edgeml coral check says what it would have gained",
    )
