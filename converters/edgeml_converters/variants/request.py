"""What convert is asked for, and the rows that follow from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from edgeml.converter import CalibrationMethod, QuantizerSettings
from edgeml.data import DataDeclaration
from edgeml.edgetpu import ACCELERATOR
from edgeml.errors import UsageError
from edgeml.health import HealthPolicy
from edgeml.preprocess import Postprocess, Preprocess
from edgeml.targets import Target
from edgeml.targets.quantizer import quantizer_settings
from edgeml.tensors import Shape
from edgeml.words import SCHEMES, IoDtype, RuntimeName, Scheme
from edgeml_converters.evaluate.latency import HERE
from edgeml_converters.quantize.sparsity import UNPAID, UNPAID_ON_EDGE_TPU
from edgeml_converters.variants.gates import Gates, Objective
from edgeml_converters.variants.rows import Row, row_name

ALL: Final = "all"
AUTO: Final = "auto"
SEARCHED: Final[tuple[Scheme, ...]] = ("float32", "float16", "int8_dynamic", "int8_static")
"""What ``auto`` tries: weights held small alone make nothing faster, and 16-bit activations run slowly."""


@dataclass(frozen=True, slots=True)
class Request:
    """One conversion, fully spelled out."""

    source: Path
    targets: tuple[Target, ...]
    schemes: tuple[Scheme, ...] = ()
    """Empty: float32, and int8_static where there are calibration data."""
    searches: bool = False
    """The schemes are those of ``auto``: what the best may be among, not what was asked for by name."""
    runtimes: tuple[RuntimeName, ...] = ()
    """Empty: all that the targets have."""
    calibration: DataDeclaration | None = None
    evaluation: DataDeclaration | None = None
    metric: str | None = None
    """Empty: top-1 for class labels, MSE for values."""
    golden: int = 8
    preprocess: Preprocess = field(default_factory=Preprocess)
    postprocess: Postprocess = field(default_factory=Postprocess)
    label_names: tuple[str, ...] = ()
    health: HealthPolicy = field(default_factory=HealthPolicy)
    name: str = ""
    release: int = 1
    gates: Gates = field(default_factory=Gates)
    objective: Objective = "latency"
    measure: bool = True
    measure_on: str = HERE
    """URL of the machine that measures."""
    threads: tuple[int, ...] = (1,)
    """Numbers of engine threads to measure with; each variant takes what is best for it."""
    resumes: bool = False
    """Take measurements of an earlier run."""
    io_dtype: IoDtype | None = None
    """``None``: int8 for the Edge TPU, float32 for everything else."""
    method: CalibrationMethod = "default"
    compiles: bool = True
    """Have int8 variants compiled for the Edge TPUs of targets, where their compiler is found."""
    compiler_via: str | None = None
    """URL of the machine that compiles; ``None``: this one."""
    input_shapes: Mapping[str, Shape] = field(default_factory=dict)
    trust_code: bool = False
    accuracy_control: bool = True
    """Keep parts of static int8 variants in float where they lose more than allowed."""
    budget_s: float = 180.0
    """Time that this may take in all."""
    jobs: int = 1
    """Runtimes that a search makes variants for at once."""
    sparsity: float | None = None
    """Share of weights at 0, in int8 variants besides the others; ``None``: none, unless size is searched."""
    drift_reference: bool = True
    """Put into the bundle what the data look like, for devices to compare with."""

    def check(self) -> None:
        """Refuse numbers that ask for nothing, and gates that nothing asked for could show.

        Raises:
            UsageError: a gate on accuracy without evaluation data, or on latency without measuring; a budget
                below 0, no process, or no share.
        """
        if not self.budget_s >= 0.0:
            raise UsageError(f"--budget-s {self.budget_s:g}: give seconds from 0")
        if self.jobs < 1:
            raise UsageError(f"--jobs {self.jobs}: give a whole number from 1")
        if self.gates.max_drop is not None and self.evaluation is None:
            raise UsageError("--max-drop needs labelled data to measure accuracy on: give --evaluate")
        if self.gates.max_slice_drop is not None and self.evaluation is None:
            raise UsageError("--max-slice-drop needs labelled data to measure classes on: give --evaluate")
        if self.objective == "memory" and not self.measure:
            raise UsageError("--objective memory needs memory to be measured: leave --no-measure out")
        if self.gates.max_latency_ms is not None and not self.measure:
            raise UsageError("--max-latency-ms needs latency to be measured: leave --no-measure out")
        share = self.sparsity
        if share is not None and not (isinstance(share, (int, float)) and 0.0 < share < 1.0):
            raise UsageError(f"--prune {share}: give the share of weights to be 0, between 0 and 1")
        if self.sparsity is not None and "int8_static" not in self.wanted_schemes:
            raise UsageError("--prune makes variants of int8_static: give --calibration, and that --scheme")

    @property
    def prunes(self) -> bool:
        """Whether to look for variants with weights at 0: in a search in which the size of files counts."""
        sized = self.objective == "size" or self.gates.max_size_bytes is not None
        return self.searches and sized and self.sparsity is None

    @property
    def wanted_schemes(self) -> tuple[Scheme, ...]:
        """The schemes to make, in the order of ``words.SCHEMES``."""
        if self.schemes:
            return tuple(scheme for scheme in SCHEMES if scheme in self.schemes)
        return ("float32", "int8_static") if self.calibration is not None else ("float32",)


def wanted_rows(request: Request) -> tuple[Row, ...]:
    """List a row for each runtime and scheme, one more where targets need other quantizer settings.

    A runtime that was asked for and that no target has is a row too, with the status ``unavailable``.
    """
    rows: dict[str, Row] = {}
    for target in request.targets:
        runtimes = [name for name in target.runtimes if not request.runtimes or name in request.runtimes]
        for runtime in runtimes:
            for scheme in request.wanted_schemes:
                settings = _settings(request, target, runtime, scheme)
                edge_tpu = _is_for_edge_tpu(target, runtime, scheme)
                name = row_name(runtime, scheme, settings, edge_tpu=edge_tpu)
                if name in rows:
                    rows[name] = replace(rows[name], targets=(*rows[name].targets, target.name))
                else:
                    rows[name] = Row(name, runtime, scheme, (target.name,), settings, edge_tpu=edge_tpu)
    if request.sparsity is not None:
        pruned = [_pruned(row, request.sparsity) for row in rows.values() if row.scheme == "int8_static"]
        rows |= {row.name: row for row in pruned}
    for runtime in request.runtimes:
        if not any(row.runtime == runtime for row in rows.values()):
            rows |= {row.name: row for row in _without_target(request, runtime)}
    order = {runtime: place for place, runtime in enumerate(request.runtimes)}
    return tuple(sorted(rows.values(), key=lambda row: (order.get(row.runtime, 0), row.runtime)))


def _pruned(row: Row, sparsity: float) -> Row:
    """Give the row with weights at 0, or without a chance where nothing is gained by them."""
    made = row.by(replace(row.settings, sparsity=sparsity))
    if row.edge_tpu:
        return made.without("unavailable", UNPAID_ON_EDGE_TPU)
    return made.without("unavailable", UNPAID[row.runtime]) if row.runtime in UNPAID else made


def _settings(request: Request, target: Target, runtime: RuntimeName, scheme: Scheme) -> QuantizerSettings:
    if scheme != "int8_static" and (scheme, runtime) != ("int8_dynamic", "onnxruntime"):
        # nothing else multiplies 8-bit numbers in a way that depends on the CPU
        return QuantizerSettings(method=request.method)
    settings = quantizer_settings(target, runtime)
    if scheme != "int8_static":
        return replace(settings, method=request.method)
    usual: IoDtype = "int8" if _is_for_edge_tpu(target, runtime, scheme) else "float32"
    return replace(settings, method=request.method, io_dtype=request.io_dtype or usual)


def _is_for_edge_tpu(target: Target, runtime: RuntimeName, scheme: Scheme) -> bool:
    return ACCELERATOR in target.accelerators and (runtime, scheme) == ("litert", "int8_static")


def _without_target(request: Request, runtime: RuntimeName) -> Sequence[Row]:
    names = ", ".join(target.name for target in request.targets)
    reason = f"no target has {runtime} ({names})"
    return [
        Row(f"{runtime}-{scheme}", runtime, scheme, (), QuantizerSettings()).without("unavailable", reason)
        for scheme in request.wanted_schemes
    ]
