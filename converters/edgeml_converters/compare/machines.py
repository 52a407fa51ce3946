"""`edgeml compare BUNDLE --on URL`: what a bundle's variants give here and on another machine."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from edgeml import plugins
from edgeml.bundle import open_bundle
from edgeml.data import open_data, parse_preprocess
from edgeml.errors import EdgemlError, EngineError, TransportError, UsageError
from edgeml.loading import OtherMachineWarning, load
from edgeml.manifest import Tolerance, Variant
from edgeml.parity import OutputParity
from edgeml.remote import RUN_TIMEOUT_S
from edgeml.targets import host
from edgeml_converters.evaluate.golden import largest, save_golden, stacked

if TYPE_CHECKING:
    from edgeml.arrays import Array
    from edgeml.bundle import Bundle
    from edgeml.remote import RemoteEdgeml
    from edgeml.words import RuntimeName, Scheme

Verdict = Literal["equal", "within", "beyond", "not_compared"]
SAMPLES_OF_DATA: Final = 32
"""Taken of data that are given, spread over them."""
FLOAT_SHARE: Final = 1e-5
"""Of the output's largest value: how far a variant may be off that has no tolerance in its bundle."""
INTEGERS: Final = ("litert", "int8_static")
"""Engine and scheme that compute with integers only: equal on every CPU, but that a convolution may come out
one step off (docs/reference/parity.md)."""
_LEVELS: Final = 255
"""Steps between the least and the greatest int8."""
_OFF_GRID: Final = 0.01
"""Of a step: what float32 leaves of a whole number of them."""


@dataclass(frozen=True, slots=True)
class OutputDifference:
    """One output here against the same there, over all samples, as the model gives it."""

    output: str
    values: int
    differing: int
    """Values that are not the same to the last bit; any NaN is the same as any other."""
    max_abs: float
    steps: float | None
    """The same in steps of the output's quantization; ``None`` for one that has none."""


@dataclass(frozen=True, slots=True)
class VariantParity:
    """What came out for one variant."""

    variant: str
    runtime: RuntimeName
    scheme: Scheme
    verdict: Verdict
    reason: str | None = None
    """Why it is beyond its tolerance, or was not compared."""
    samples: int = 0
    max_abs_allowed: float | None = None
    """The tolerance."""
    engine_here: str | None = None
    engine_there: str | None = None
    """Versions."""
    outputs: tuple[OutputDifference, ...] = ()

    @property
    def max_abs(self) -> float:
        return max((one.max_abs for one in self.outputs), default=0.0)

    @property
    def steps(self) -> float | None:
        return max((one.steps for one in self.outputs if one.steps is not None), default=None)

    @property
    def differing_share(self) -> float:
        """Share of all values, 0 to 1."""
        return sum(one.differing for one in self.outputs) / max(1, sum(one.values for one in self.outputs))


@dataclass(frozen=True, slots=True)
class MachineComparison:
    """What comparing a bundle on two machines found."""

    bundle: Path
    model: str
    release: int
    url: str
    here: str
    """This machine's class."""
    data: str | None
    """``None``: the bundle's golden samples."""
    variants: tuple[VariantParity, ...]

    def to_json(self) -> dict[str, Any]:
        """Give what ``edgeml compare --on --json`` prints; docs/reference/json.md describes it."""
        return {
            "bundle": str(self.bundle),
            "model": self.model,
            "release": self.release,
            "on": self.url,
            "here": self.here,
            "data": self.data,
            "variants": [asdict(one) for one in self.variants],
        }


def compare_on(
    remote: RemoteEdgeml,
    path: Path,
    *,
    names: Sequence[str],
    data: str | None,
    preprocess: Sequence[str],
    limit: int | None,
    show: Callable[[str], None],
) -> MachineComparison:
    """Run a bundle's variants on the same samples here and there, and compare what they give.

    Args:
        remote: the other machine.
        path: the bundle.
        names: of variants; none: all.
        data: samples; ``None``: the bundle's golden ones.
        preprocess: of ``data``, over what the bundle declares.
        limit: take so many of ``data``.
        show: takes a line that says what is going on.

    Raises:
        BundleError, DataError, UsageError: the bundle or the samples cannot be used.
        EngineError: no variant could be compared; says why.
        TransportError: the machine was lost.
    """
    bundle = open_bundle(path)
    manifest = bundle.manifest
    chosen = manifest.named(names) or manifest.variants
    with TemporaryDirectory(prefix="edgeml-compare.") as scratch:
        inputs = Path(scratch) / "inputs.npz"
        if data is None:
            inputs.write_bytes(_golden(bundle))
        else:
            _write_data(inputs, bundle, data, preprocess, limit or SAMPLES_OF_DATA)
        pair = _Pair(path, inputs, remote, data is None, show)
        found = tuple(pair.compare(variant) for variant in chosen)
    reasons = {one.reason: None for one in found if one.verdict == "not_compared"}
    if all(one.verdict == "not_compared" for one in found):
        told = "; ".join(map(str, reasons))
        raise EngineError(f"no variant of {manifest.name} could be compared with {remote.url}: {told}")
    return MachineComparison(path, manifest.name, manifest.release, remote.url, host().name, data, found)


def _golden(bundle: Bundle) -> bytes:
    if bundle.manifest.golden_inputs is None:
        raise UsageError(f"{bundle.path} has no golden samples to compare on; give some with --data")
    return bundle.read(bundle.manifest.golden_inputs)


def _write_data(file: Path, bundle: Bundle, data: str, preprocess: Sequence[str], limit: int) -> None:
    manifest = bundle.manifest
    declared = parse_preprocess(preprocess, manifest.preprocess)
    samples = list(open_data(data, inputs=manifest.inputs, preprocess=declared, limit=limit))
    save_golden(file, samples)


class _Pair:
    """This machine and the other one, with the bundle and the samples on both."""

    def __init__(
        self, bundle: Path, inputs: Path, remote: RemoteEdgeml, is_golden: bool, show: Callable[[str], None]
    ) -> None:
        self._bundle = bundle
        self._inputs = inputs
        self._remote = remote
        self._is_golden = is_golden
        self._show = show
        self._there: tuple[str, str] | None = None

    def compare(self, variant: Variant) -> VariantParity:
        """Compare a variant; that it cannot be run is a result."""
        row = VariantParity(variant.name, variant.runtime, variant.scheme, "not_compared")
        self._show(f"{variant.name}: running it here")
        try:
            left, count = self._run_here(variant)
        except EdgemlError as error:
            return replace(row, reason=f"here: {error}")
        row = replace(row, samples=count, engine_here=plugins.runtime(variant.runtime).version)
        self._show(f"{variant.name}: running it on {self._remote.url}")
        try:
            right, version = self._run_there(variant)
        except TransportError:
            raise
        except EdgemlError as error:
            return replace(row, reason=str(error))
        row = replace(row, engine_there=version)
        return _judged(row, variant, left, right, is_golden=self._is_golden)

    def _run_here(self, variant: Variant) -> tuple[dict[str, Array], int]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", OtherMachineWarning)
            model = load(self._bundle, variant=variant.name)
        with model:
            samples = open_data(self._inputs, inputs=model.spec.inputs)
            return stacked([model.run(sample) for sample in samples]), len(samples)

    def _run_there(self, variant: Variant) -> tuple[dict[str, Array], str]:
        """Give the outputs there, stacked, and the engine's version.

        Raises:
            EngineError, UsageError: edgeml there could not run it.
        """
        if self._there is None:
            self._there = self._remote.put(self._bundle), self._remote.put(self._inputs)
        output = self._remote.scratch(f"{variant.name}.npz")
        words = ["--variant", variant.name, "--raw", "--output", output, "--json"]
        done = self._remote.edgeml(["run", *self._there, *words], RUN_TIMEOUT_S)
        if done.exit_code and b"--raw" in done.stderr:
            url = self._remote.url
            raise EngineError(f"edgeml on {url} is too old: edgeml devices provision {url}")
        if done.exit_code:
            raise self._remote.failure(done)
        results = self._inputs.with_name(f"{variant.name}.npz")
        self._remote.get(output, results)
        try:
            version = str(json.loads(done.stdout)["runtime_version"])
            with np.load(io.BytesIO(results.read_bytes()), allow_pickle=False) as held:
                return {name: held[name] for name in held.files}, version
        except (ValueError, KeyError, TypeError, EOFError) as error:
            raise EngineError(f"on {self._remote.url}: edgeml run said nothing that can be read") from error


def _judged(
    row: VariantParity,
    variant: Variant,
    left: Mapping[str, Array],
    right: Mapping[str, Array],
    *,
    is_golden: bool,
) -> VariantParity:
    """Hold the outputs there, ``right``, against those here."""
    outputs, faults, limits = [], [], []
    scales = [max(spec.quantization.scale) if spec.quantization else None for spec in variant.outputs]
    for place, (name, wanted) in enumerate(left.items()):
        if name not in right:
            return replace(row, reason=f"edgeml there gives no output {name!r}: {', '.join(right)}")
        step = _step(variant, wanted, scales[place] if place < len(scales) else None)
        parity = OutputParity(name, wanted, _tolerance(variant, wanted, step, is_golden=is_golden))
        for part in np.array_split(right[name], row.samples):
            parity.add(part)
        fault = parity.fault()
        if fault is not None:
            faults.append(fault)
        limits.append(parity.tolerance.max_abs)
        outputs.append(_difference(parity, right[name], step))
    is_equal = not any(one.differing for one in outputs)
    return replace(
        row,
        verdict="equal" if is_equal else "beyond" if faults else "within",
        reason=None if is_equal or not faults else "; ".join(faults),
        max_abs_allowed=max(limits),
        outputs=tuple(outputs),
    )


def _step(variant: Variant, values: Array, scale: float | None) -> float | None:
    """Give the step of an output's quantization, in its own unit; ``None`` where it is not known."""
    if values.dtype.kind in "iu":
        return None if scale is None else 1.0
    return grid_step(values) if scale is None and variant.scheme == "int8_static" else scale


def grid_step(values: Array) -> float | None:
    """Give the least step that dequantized int8 values can have; ``None`` if they cannot be such.

    All lie whole steps apart, the greatest at most 255 from the least.
    """
    distinct = np.unique(values[np.isfinite(values)]).astype(np.float64)
    if not 1 < distinct.size <= _LEVELS + 1:
        return None
    gaps = np.diff(distinct)
    step = gaps.min()
    if np.abs(gaps / step - np.rint(gaps / step)).max() > _OFF_GRID:
        return None
    least = (distinct[-1] - distinct[0]) / _LEVELS
    return float(step / max(1.0, np.floor(step / least + 1e-4)))


def _tolerance(variant: Variant, here: Array, step: float | None, *, is_golden: bool) -> Tolerance:
    if (variant.runtime, variant.scheme) == INTEGERS:
        return Tolerance((1 + _OFF_GRID) * (step or 0.0))
    if variant.tolerance is None:
        return Tolerance(FLOAT_SHARE * largest(here))
    if is_golden:
        return variant.tolerance
    # how many samples are sure of their class was counted on the golden ones
    return replace(variant.tolerance, top1_agreement_min=0.0)


def _difference(parity: OutputParity, got: Array, step: float | None) -> OutputDifference:
    wanted = parity.expected
    same = wanted.shape == got.shape and wanted.dtype == got.dtype
    differing = int((_bits(wanted) != _bits(got)).sum()) if same else wanted.size
    steps = None if step is None else parity.max_abs / step
    return OutputDifference(parity.name, wanted.size, differing, parity.max_abs, steps)


def _bits(array: Array) -> Array:
    """Give the values as integers, every NaN the same one."""
    if array.dtype.kind == "f":
        array = np.where(np.isnan(array), np.asarray(np.nan, array.dtype), array)
    return np.ascontiguousarray(array).view(f"u{array.dtype.itemsize}")
