"""What convert asks for and what came of it: one row per runtime, scheme and quantizer settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal

from edgeml.converter import CalibrationMethod, QuantizerSettings
from edgeml.findings import Finding
from edgeml.manifest import Measured, Tolerance
from edgeml.tensors import TensorSpec
from edgeml.words import RuntimeName, Scheme
from edgeml_converters.compare.outputs import OutputComparison
from edgeml_converters.evaluate.confusion import ClassChange
from edgeml_converters.evaluate.operators import Profile
from edgeml_converters.evaluate.slices import SliceDrop

Status = Literal["ok", "failed", "unavailable", "gate"]
INTERRUPTED: Final = "not made: the search was interrupted before"
"""The reason of a row whose turn did not come."""


@dataclass(frozen=True, slots=True)
class StepTrace:
    """One step as it was done."""

    name: str
    source: str
    target: str
    seconds: float
    cached: bool
    outputs: tuple[OutputComparison, ...] = ()
    """The step's result against its own source on the parity samples."""
    notes: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Row:
    """One variant that was asked for."""

    name: str
    runtime: RuntimeName
    scheme: Scheme
    targets: tuple[str, ...]
    settings: QuantizerSettings
    status: Status = "ok"
    reason: str = ""
    brief: str = ""
    """The reason for a person, where there is a shorter one."""
    artifact: Path | None = None
    sha256: str | None = None
    """Of the artifact, as ``hash_tree`` gives it."""
    size_bytes: int | None = None
    measured: Measured = field(default_factory=Measured)
    drop_points: float | None = None
    slices: tuple[SliceDrop, ...] = ()
    """By class, or by the parts that the data declare, what loses most first; empty where there are none."""
    classes: tuple[SliceDrop, ...] = ()
    """The same by class, where the data declare other parts."""
    changes: tuple[ClassChange, ...] = ()
    """Samples that it puts into another class than the source does, the most frequent pair first."""
    outputs_compared: tuple[OutputComparison, ...] = ()
    """Against the source model, over the evaluation data (or the parity samples without them)."""
    steps: tuple[StepTrace, ...] = ()
    findings: tuple[Finding, ...] = ()
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    options: Mapping[str, str] = field(default_factory=dict)
    other_options: tuple[Row, ...] = ()
    """The same file, timed with other options of its engine; the reason says why they were not taken."""
    runtime_version: str = ""
    """Of the engine that it was tried with."""
    edge_tpu: bool = False
    """Made for the Edge TPU: its graph is rewritten as the compiler needs it."""
    profile: Profile | None = None
    """Times of its operators; ``None``: they were not asked for."""
    golden: Path | None = None
    """npz of the outputs for the golden inputs, under the source's output names."""
    tolerance: Tolerance | None = None
    accelerator: str | None = None
    """What it was compiled for."""
    fallback: Path | None = None
    """What it was compiled of, which runs on the CPU."""
    mapping: Mapping[str, Any] = field(default_factory=dict)
    """What the accelerator's compiler made of it, as the bundle says it."""

    @property
    def agreement(self) -> float | None:
        """Top-1 agreement with the source of the output that agrees least."""
        known = [one.top1_agreement for one in self.outputs_compared if one.top1_agreement is not None]
        return min(known) if known else None

    @property
    def told(self) -> str:
        """The reason as people are told it."""
        return self.brief or self.reason

    @property
    def is_made(self) -> bool:
        """Whether it was made and judged, even if a gate refused it."""
        return self.status in {"ok", "gate"}

    @property
    def way(self) -> tuple[object, ...]:
        """How it is made: rows of one way are the same variant."""
        return self.runtime, self.scheme, self.settings, self.edge_tpu, self.accelerator

    def by(self, settings: QuantizerSettings, *, asked: CalibrationMethod | None = None) -> Row:
        """Give the row by other settings, before it is made; ``asked`` is as for ``row_name``."""
        name = row_name(self.runtime, self.scheme, settings, edge_tpu=self.edge_tpu, asked=asked)
        return Row(name, self.runtime, self.scheme, self.targets, settings, edge_tpu=self.edge_tpu)

    def with_findings(self, *findings: Finding) -> Row:
        """Give the row with findings behind its own."""
        return replace(self, findings=(*self.findings, *findings))

    def without(self, status: Status, reason: str, brief: str = "") -> Row:
        """Give the row with another status."""
        return replace(self, status=status, reason=reason, brief=brief)


@dataclass(frozen=True, slots=True)
class Made:
    """What came of the rows that were asked for."""

    rows: tuple[Row, ...]
    """In their order, and after them what accuracy control and pruning added."""
    interrupted: bool = False
    """A search was told to stop: rows may be missing, or not be measured."""


@dataclass(frozen=True, slots=True)
class Lacking:
    """Rows without a usable artifact that share their reason."""

    status: Status
    names: tuple[str, ...]
    reason: str


def lacking(rows: Sequence[Row]) -> tuple[Lacking, ...]:
    """Group the rows that were not made, or were refused, by what people are told; in their order."""
    groups: dict[tuple[Status, str], list[str]] = {}
    for row in rows:
        if row.status != "ok":
            groups.setdefault((row.status, row.told), []).append(row.name)
    return tuple(Lacking(status, tuple(names), reason) for (status, reason), names in groups.items())


def row_name(
    runtime: RuntimeName,
    scheme: Scheme,
    settings: QuantizerSettings,
    *,
    edge_tpu: bool = False,
    asked: CalibrationMethod | None = None,
) -> str:
    """Name a variant: ``<runtime>-<scheme>`` and what is particular to it.

    ``-trimmed``: without dead channels; ``-reduced``: 7-bit weights; ``-equalized``: channels brought
    together before; ``-corrected``: biases take back what rounded weights add; ``-minmax``, ``-percentile``:
    another rule for ranges than was ``asked`` for; ``-mixed``: parts in float; ``-pruned30``: 30 % of the
    weights at 0; ``-coral``: for the Edge TPU.
    """
    particular = {
        "-trimmed": settings.trimmed, "-reduced": settings.reduce_range, "-equalized": settings.equalize,
        "-corrected": settings.bias_correction,
        f"-{settings.method}": asked not in {None, settings.method},
        "-mixed": bool(settings.float_tensors),
        f"-pruned{100 * settings.sparsity:.3g}": settings.sparsity > 0.0, "-coral": edge_tpu,
    }  # fmt: skip
    return f"{runtime}-{scheme}" + "".join(text for text, said in particular.items() if said)
