"""What a bundle says of itself. Unknown fields survive reading and writing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from edgeml.errors import UsageError
from edgeml.preprocess import Postprocess, Preprocess
from edgeml.tensors import TensorSpec
from edgeml.words import RuntimeName, Scheme

SCHEMA_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A file in the bundle: path relative to its root with ``/``, size, and hash as hex."""

    path: str
    size_bytes: int
    sha256: str
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Latency:
    """Wall time of one inference in milliseconds, one caller, batch 1."""

    p50: float
    p95: float
    p99: float


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured of a variant, and where. ``None``: not measured."""

    accuracy: float | None = None
    """The metric's value; for top-1, top-5 and AUC between 0 and 1."""
    float_accuracy: float | None = None
    """The source model's on the same data."""
    metric: str | None = None
    sqnr_db: float | None = None
    """Of the outputs against the source model's: 10·log10(Σ source² / Σ (source − variant)²)."""
    latency_ms: Latency | None = None
    load_ms: float | None = None
    peak_memory_bytes: int | None = None
    """Growth of the peak resident set of a fresh process from before the engine is imported."""
    machine: str | None = None
    """CPU class of the machine that measured, as ``targets.host().name`` and its CPU features say it."""
    threads: int | None = None
    temperature_celsius: float | None = None
    """Of the processor while latency was taken, the highest; ``None``: the machine shows none."""
    cpu_frequency_hertz: float | None = None
    """The lowest clock then, as the mean of the cores."""
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Needs:
    """What a variant needs of a machine."""

    memory_bytes: int | None = None
    accelerator: str | None = None
    cpu_features: tuple[str, ...] = ()
    """All of these, as spelled in target profiles."""
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far golden outputs may be off on another machine: all three must hold for each output."""

    max_abs: float
    cosine_min: float = 0.99
    """Of each sample whose values are not all within ``max_abs`` of 0."""
    top1_agreement_min: float = 0.0
    """Share of golden samples whose largest output must stand in the same place (0: not checked)."""
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Variant:
    """One artifact: runtime, scheme, and the targets it suits."""

    name: str
    """``<runtime>-<scheme>`` and what is particular to it (``-reduced``: 7-bit weights); also its folder."""
    runtime: RuntimeName
    scheme: Scheme
    files: tuple[FileEntry, ...]
    """The first is the one the runtime loads."""
    targets: tuple[str, ...]
    runtime_version: str = ""
    """Version range as in packaging metadata: ``>=2.1,<3``; empty for any."""
    options: Mapping[str, str] = field(default_factory=dict)
    """Engine options the figures were taken with, as ``Runtime.options`` reads them."""
    needs: Needs = Needs()
    fallback: str | None = None
    """Path of a further file: its source, which runs on the CPU where the accelerator cannot be used."""
    measured: Measured = Measured()
    golden: FileEntry | None = None
    """The variant's expected outputs (npz) for the samples in ``golden/inputs.npz``."""
    tolerance: Tolerance | None = None
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    """The artifact's own signature (an int8 artifact's differs from the bundle's)."""
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DataEntry:
    """Data that the bundle was made with: what for, how many samples, their hash."""

    role: str
    """``calibration`` or ``evaluation``."""
    count: int
    sha256: str
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Manifest:
    """The first file of a bundle, ``manifest.json``."""

    name: str
    release: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    variants: tuple[Variant, ...]
    files: tuple[FileEntry, ...]
    """Everything in the bundle that no variant lists, the manifest itself excepted."""
    preprocess: Preprocess = Preprocess()
    postprocess: Postprocess = Postprocess()
    data: tuple[DataEntry, ...] = ()
    labels: str | None = None
    """Path of the labels file, one a line."""
    golden_inputs: str | None = None
    health: Mapping[str, Any] = field(default_factory=dict)
    drift: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    schema: int = SCHEMA_VERSION
    extra: Mapping[str, Any] = field(default_factory=dict)

    def named(self, names: Sequence[str]) -> tuple[Variant, ...]:
        """Give the variants of these names, each once.

        Raises:
            UsageError: there is no such variant.
        """
        known = {one.name: one for one in self.variants}
        for name in names:
            if name not in known:
                raise UsageError(f"{self.name} has no variant {name!r}; its variants are: {', '.join(known)}")
        return tuple(known[name] for name in dict.fromkeys(names))
