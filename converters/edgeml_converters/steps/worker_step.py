"""Steps whose tool lives in a worker, which gets a copy of the model and says what it made."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from edgeml.converter import Requirement, StepRequest, StepResult
from edgeml.errors import ConversionError
from edgeml.words import ARTIFACT_FILE, Format
from edgeml_converters.steps.step import FormatStep, state
from edgeml_converters.workers.run import run_job

SOURCE_OUTPUTS: Final = "source_outputs.npz"
TIMEOUT_S: Final = 1800.0
"""The longest conversion measured took a minute; one that takes this long hangs."""


def worker_step(worker: str, source: Format, target: Format, cost: float) -> FormatStep:
    """Give the step ``<source>-to-<target>`` that a worker does alone."""

    def action(request: StepRequest) -> StepResult:
        return convert_in_worker(worker, request, (source, target)).result()

    return FormatStep(
        f"{source}-to-{target}",
        state(source),
        state(target),
        (Requirement("worker", worker),),
        cost,
        action,
    )


@dataclass(frozen=True, slots=True)
class Made:
    """What a worker left in the step's folder."""

    artifact: Path
    source_outputs: Path | None
    inputs: tuple[str, ...]
    """The source's own input names, in its order; empty where the worker does not tell."""
    outputs: tuple[str, ...]
    notes: tuple[str, ...]
    versions: Mapping[str, str]

    def result(self) -> StepResult:
        """Give the step's result for this, as it is."""
        return StepResult(
            self.artifact, source_outputs=self.source_outputs, notes=self.notes, versions=self.versions
        )


def convert_in_worker(
    worker: str,
    request: StepRequest,
    edge: tuple[Format, Format],
    *,
    source: Path | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Made:
    """Let a worker convert a copy of ``source`` (default: the request's) along ``edge``.

    Raises:
        WorkerError: missing, failed, or did not finish in ``TIMEOUT_S``.
        ConversionError: it reported success and left no artifact.
    """
    original = source or request.source
    artifact = request.output_dir / ARTIFACT_FILE[edge[1]]
    outputs = request.output_dir / SOURCE_OUTPUTS if request.samples else None
    with tempfile.TemporaryDirectory(prefix="edgeml-copy-") as scratch:
        copy = Path(scratch) / original.name
        if original.is_dir():
            shutil.copytree(original, copy)
        else:
            shutil.copyfile(original, copy)
        job = {
            "source": str(copy),
            "source_format": edge[0],
            "target_format": edge[1],
            "output": str(artifact.absolute()),
            "input_shapes": {name: list(shape) for name, shape in request.input_shapes.items()},
            "samples": str(request.samples.absolute()) if request.samples else None,
            "source_outputs": str(outputs.absolute()) if outputs else None,
            "trust_code": request.trust_code,
            **(extra or {}),
        }
        found = run_job(worker, job, TIMEOUT_S)
    if not artifact.exists():
        raise ConversionError(f"worker {worker} reported success and left no {artifact.name}")
    return Made(
        artifact,
        outputs if outputs and outputs.exists() else None,
        _texts(found.get("inputs")),
        _texts(found.get("outputs")),
        _texts(found.get("notes")),
        {str(name): str(value) for name, value in dict(found.get("versions") or {}).items()},
    )


def _texts(values: Sequence[Any] | None) -> tuple[str, ...]:
    return tuple(str(value) for value in values or ())
