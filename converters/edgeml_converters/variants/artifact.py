"""A model on its way: one file, its state, its signature, and what it gives on the parity samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

from edgeml import plugins
from edgeml.arrays import Array
from edgeml.converter import State
from edgeml.errors import ConversionError, EngineMissingError, ParityError, UsageError
from edgeml.findings import Finding
from edgeml.runtime import Session
from edgeml.tensors import Shape, TensorSpec
from edgeml.words import RUNTIME_OF_FORMAT, Format, RuntimeName
from edgeml_converters.compare.outputs import pair_names
from edgeml_converters.evaluate.accuracy import Naming
from edgeml_converters.formats.shapes import fixed_shapes
from edgeml_converters.variants.rows import StepTrace

OPTIONS: Final[Mapping[RuntimeName, Mapping[str, str]]] = {"openvino": {"precision": "f32"}}
"""What figures are taken with, so that an engine's defaults cannot change results unseen."""


@dataclass(slots=True)
class Artifact:
    """A model file and what is known of it. The source is one, and so is what each step made."""

    path: Path
    state: State
    key: str
    """Hash of what determines its content."""
    parent: Artifact | None = None
    trace: StepTrace | None = None
    naming: Naming = field(default_factory=lambda: Naming({}, {}))
    """The source's names to its own."""
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    findings: tuple[Finding, ...] = ()
    parity: list[dict[str, Array]] | None = None
    """Outputs for the parity samples under the source's names; ``None``: nothing could run it."""
    lost: ParityError | None = None
    """Why the step that made it is not to be used: it differs from its source by too much."""
    _session: Session | None = None

    @property
    def runtime(self) -> RuntimeName | None:
        """The runtime that reads the format, installed or not."""
        return RUNTIME_OF_FORMAT.get(self.state.format)

    def session(self) -> Session:
        """Load it, once; one thread.

        Raises:
            ConversionError: no runtime reads the format.
            EngineMissingError: the runtime is not installed.
        """
        if self._session is None:
            if self.runtime is None:
                raise ConversionError(f"{self.path.name}: no runtime runs {self.state.format}")
            driver = plugins.runtime(self.runtime)
            self._session = driver.load(self.path, driver.options(OPTIONS.get(self.runtime, {})))
        return self._session

    def release(self) -> None:
        """Free the engine's memory; ``session`` loads again."""
        if self._session is not None:
            self._session.close()
            self._session = None

    def run(self, sample: Mapping[str, Array]) -> dict[str, Array]:
        """Run one sample; names on both sides are the source's."""
        return self.naming.run(self.session(), sample)

    def lineage(self) -> tuple[Artifact, ...]:
        """Give the artifacts from the source to this one."""
        before = self.parent.lineage() if self.parent is not None else ()
        return (*before, self)


def runs_here(format_: Format) -> bool:
    """Say whether a runtime for the format is installed."""
    if format_ not in RUNTIME_OF_FORMAT:
        return False
    try:
        plugins.runtime(RUNTIME_OF_FORMAT[format_])
    except (EngineMissingError, UsageError):
        return False
    return True


def match_signature(
    step: str,
    parent: Artifact,
    made: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    renamed: Mapping[str, str],
) -> tuple[Naming, tuple[Finding, ...]]:
    """Pair the signature that a step made with its source's, and report what changed.

    Raises:
        ConversionError: another number of inputs or outputs, another layout or size.
    """
    inputs = _paired(step, "input", parent.inputs, made, renamed)
    outs = _paired(step, "output", parent.outputs, outputs, renamed)
    naming = Naming(
        _through(parent.naming.inputs, {left.name: right.name for left, right in inputs}),
        _through(parent.naming.outputs, {left.name: right.name for left, right in outs}),
    )
    changed = [f"{left.name} → {right.name}" for left, right in (*inputs, *outs) if left.name != right.name]
    findings = []
    if changed:
        findings.append(
            Finding(
                "names-changed",
                "info",
                step,
                f"{', '.join(changed)}",
                "the bundle keeps the source's names; its variants are called under them",
            )
        )
    for left, right in (*inputs, *outs):
        if left.dtype != right.dtype and left.quantization is None and right.quantization is None:
            findings.append(
                Finding(
                    "dtype-changed",
                    "warning",
                    step,
                    f"{left.name}: {left.dtype} became {right.dtype}",
                    "callers must pass the new dtype to this variant",
                )
            )
    return naming, tuple(findings)


def random_samples(inputs: Sequence[TensorSpec], count: int) -> list[dict[str, Array]]:
    """Draw samples with a fixed seed: standard normal for floats, 0 and 1 for the rest; batch 1.

    Raises:
        ConversionError: an input has a free dimension besides the batch.
    """
    generator = np.random.default_rng(0)
    shapes = fixed_shapes({spec.name: spec.shape for spec in inputs}, {})
    samples = []
    for _ in range(count):
        sample: dict[str, Array] = {}
        for spec in inputs:
            shape = shapes[spec.name]
            if np.issubdtype(np.dtype(spec.dtype), np.floating):
                sample[spec.name] = generator.standard_normal(shape).astype(spec.dtype)
            else:
                sample[spec.name] = generator.integers(0, 2, shape).astype(spec.dtype)
        samples.append(sample)
    return samples


def _paired(
    step: str, what: str, source: Sequence[TensorSpec], made: Sequence[TensorSpec], renamed: Mapping[str, str]
) -> list[tuple[TensorSpec, TensorSpec]]:
    try:
        names = pair_names(source, made, renamed)
    except ConversionError as error:
        raise ConversionError(f"{step}: {error}") from error
    left, right = {spec.name: spec for spec in source}, {spec.name: spec for spec in made}
    pairs = [(left[a], right[b]) for a, b in names]
    for before, after in pairs:
        if not _same_shape(before.shape, after.shape):
            raise ConversionError(
                f"{step}: {what} {before} became {after}: another layout or size than the source's; "
                "convert from another format, or report this model"
            )
    return pairs


def _same_shape(left: Shape, right: Shape) -> bool:
    if len(left) != len(right):
        return False
    return all(a is None or b is None or a == b for a, b in zip(left, right, strict=True))


def _through(first: Mapping[str, str], second: Mapping[str, str]) -> dict[str, str]:
    """Compose source → parent and parent → made names; an empty first stands for the identity."""
    if not first:
        return dict(second)
    return {name: second[own] for name, own in first.items()}
