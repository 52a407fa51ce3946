"""Runs planned steps: shared prefixes once, from the cache where possible, each compared with its source."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Final

from edgeml.archive import READ_ERRORS
from edgeml.arrays import Array
from edgeml.converter import (
    Calibration,
    ConversionStep,
    QuantizerSettings,
    Sample,
    State,
    StepRequest,
    StepResult,
)
from edgeml.errors import ConversionError, EdgemlError, EngineMissingError, ParityError
from edgeml.findings import Finding
from edgeml.tensors import Shape, TensorSpec
from edgeml.words import FLOATS, Scheme
from edgeml_converters.compare.outputs import OutputComparison, compared
from edgeml_converters.compare.tensors import (
    FLOAT_THRESHOLDS,
    QUANTIZED_THRESHOLDS,
    first_divergence,
    match_tensors,
    tapped_values,
)
from edgeml_converters.evaluate.accuracy import Naming
from edgeml_converters.evaluate.golden import read_golden, save_golden
from edgeml_converters.formats.files import hash_tree
from edgeml_converters.variants.artifact import Artifact, match_signature, runs_here
from edgeml_converters.variants.rows import StepTrace
from edgeml_converters.variants.step_cache import StepCache, content_key, own_code

CALIBRATED: Final[frozenset[Scheme]] = frozenset({"int8_static", "int16x8"})
RELATIVE_LIMIT: Final[Mapping[Scheme, float]] = {"float32": 1e-3, "float16": 1e-2}
"""Largest difference that a float hop may make, as a share of the output's largest absolute value."""
REPAIR_LIMIT: Final = 1e-5
"""The same for a step inside a format: float32 sums in another order, and nothing else."""
FLOAT_COSINE: Final = 0.999
QUANTIZED_SQNR_DB: Final = 6.0
QUANTIZED_COSINE: Final = 0.9
PROBED_SAMPLES: Final = 2
"""Samples that the search for the first diverging tensor looks at."""


@dataclass(frozen=True, slots=True)
class Renamed:
    """Calibration data under the names of an artifact."""

    data: Calibration
    naming: Naming

    def __len__(self) -> int:
        return len(self.data)

    def __iter__(self) -> Iterator[Sample]:
        return map(self.naming.fed, self.data)

    @property
    def sha256(self) -> str:
        """Hash of the data."""
        return self.data.sha256


@dataclass(frozen=True, slots=True)
class _Hop:
    """A step from an artifact; settings and data are given to one that quantizes."""

    step: ConversionStep
    parent: Artifact
    settings: QuantizerSettings | None = None
    calibration: Renamed | None = None


@dataclass(slots=True)
class Executor:
    """Makes artifacts from one source."""

    source: Artifact
    scratch: Path
    cache: StepCache
    input_shapes: Mapping[str, Shape]
    trust_code: bool
    progress: Callable[[str], None]
    stage: str = ""
    """Stands before what ``tell`` says: which of how many variants is being made."""
    samples: list[dict[str, Array]] = field(default_factory=list)
    """Parity samples under the source's names; none before the source's signature is known."""
    findings: list[Finding] = field(default_factory=list)
    _made: dict[str, Artifact | EdgemlError] = field(default_factory=dict)
    _samples_file: Path | None = None
    _probed: dict[str, tuple[StepResult, bool, float]] = field(default_factory=dict)
    """By step name: what ``_result`` gave to a probe."""

    def tell(self, doing: str) -> None:
        """Say what is being done."""
        self.progress(f"{self.stage}{doing}")

    def for_process(self, scratch: Path) -> Executor:
        """Give a copy that another process can be handed: engines freed, failures forgotten."""
        made: dict[str, Artifact | EdgemlError] = {}
        for key, one in self._made.items():
            if isinstance(one, Artifact):
                one.release()
                made[key] = one
        self.source.release()
        return replace(self, scratch=scratch, progress=_untold, stage="", findings=[], _made=made)

    def use_samples(self, samples: Sequence[Mapping[str, Array]]) -> None:
        """Set the parity samples and take the source's outputs for them, if it can be run here."""
        self.samples = [dict(sample) for sample in samples]
        self._made.clear()
        if runs_here(self.source.state.format):
            self.source.parity = [self.source.run(sample) for sample in self.samples]
            return
        self._samples_file = save_golden(self.scratch / "samples.npz", self.samples)

    def make(
        self,
        steps: Sequence[ConversionStep],
        settings: QuantizerSettings,
        calibration: Calibration | None,
        *,
        lost: bool = False,
    ) -> Artifact:
        """Run a path from the source; steps done before for another path are not done again.

        An artifact that differs from its source by too much is given only where ``lost`` ones are wanted.

        Raises:
            EdgemlError: a step failed, or its result differs from its source (ParityError).
        """
        artifact = self.source
        for step in steps:
            artifact = self._step(step, artifact, settings, calibration)
            if artifact.lost is not None and not lost:
                raise artifact.lost
        return artifact

    def probe(self, step: ConversionStep) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
        """Give the signature of a source that nothing here can run, by a float step that reads it."""
        hop = _Hop(step, self.source)
        key = self._key(hop)
        self.tell(step.name)
        try:
            self._probed[step.name] = self._result(hop, key)
        except EdgemlError as error:
            self._made[key] = error
            raise
        result = self._probed[step.name][0]
        made = Artifact(result.artifact, step.target, "")
        session = made.session()
        try:
            return _renamed(session.inputs, result), _renamed(session.outputs, result)
        finally:
            made.release()

    def was_probed(self, steps: Sequence[ConversionStep]) -> bool:
        """Say whether a path begins with what a probe did.

        Such a path is made last: once another step has handed the source's outputs over, the probe's
        result is compared with them and need not be made a second time.
        """
        return bool(steps) and steps[0].name in self._probed

    def _step(
        self,
        step: ConversionStep,
        parent: Artifact,
        settings: QuantizerSettings,
        calibration: Calibration | None,
    ) -> Artifact:
        hop = _Hop(
            step,
            parent,
            settings if step.source.scheme != step.target.scheme else None,
            Renamed(calibration, parent.naming) if calibration is not None and calibrates(step) else None,
        )
        key = self._key(hop)
        known = self._made.get(key)
        if known is None:
            try:
                known = self._do(hop, key)
            except EdgemlError as error:
                known = error
            self._made[key] = known
        if isinstance(known, EdgemlError):
            raise known
        return known

    def _do(self, hop: _Hop, key: str) -> Artifact:
        step, parent = hop.step, hop.parent
        self.tell(step.name)
        if parent is self.source and parent.parity is not None and step.name in self._probed:
            result, cached, seconds = self._probed[step.name]
        else:
            result, cached, seconds = self._result(hop, key)
        made = Artifact(result.artifact, step.target, key, parent)
        trace = StepTrace(
            name=step.name,
            source=str(step.source),
            target=str(step.target),
            seconds=seconds,
            cached=cached,
            notes=result.notes,
            versions=result.versions,
            ranges=result.ranges,
        )
        if parent is self.source and result.source_outputs is not None:
            parent.parity = _unstacked(result.source_outputs)
        findings = list(result.findings)
        if runs_here(made.state.format):
            session = made.session()
            made.inputs, made.outputs = session.inputs, session.outputs
            made.naming, changed = match_signature(
                step.name, parent, made.inputs, made.outputs, result.tensor_names
            )
            findings += changed
            made.parity = [made.run(sample) for sample in self.samples]
            trace = replace(trace, outputs=self._compare(step, parent, made))
        else:
            made.inputs, made.outputs, made.naming = parent.inputs, parent.outputs, parent.naming
        made.trace = trace
        made.findings = tuple(findings)
        return made

    def _compare(
        self, step: ConversionStep, parent: Artifact, made: Artifact
    ) -> tuple[OutputComparison, ...]:
        """Compare a step's result with its nearest ancestor that could be run, and say if it is lost."""
        if not made.parity:
            return ()
        reference = next((one for one in reversed(parent.lineage()) if one.parity), None)
        if reference is None or reference.parity is None:
            return ()
        outputs = compared(reference.parity, made.parity)
        reason = parity_failure(step.source, step.target, outputs)
        if reason is not None:
            made.lost = ParityError(f"{step.name}: {reason}{self._divergence(step, reference, made)}")
        return outputs

    def _divergence(self, step: ConversionStep, reference: Artifact, made: Artifact) -> str:
        """Say where the two begin to differ, if both runtimes can show it."""
        made.release()
        samples = self.samples[:PROBED_SAMPLES]
        left = tapped_values(reference.runtime, reference.path, reference.naming, samples)
        right = tapped_values(made.runtime, made.path, made.naming, samples)
        if left is None or right is None:
            return ""
        limits = FLOAT_THRESHOLDS if step.target.scheme in FLOATS else QUANTIZED_THRESHOLDS
        first = first_divergence(match_tensors(left, right, limits), limits)
        if first is None:
            return "; no intermediate tensor that both show diverges before the output"
        return f"; the first tensor that diverges is {first.name} (SQNR {first.sqnr_db:.1f} dB)"

    def _result(self, hop: _Hop, key: str) -> tuple[StepResult, bool, float]:
        """Give a step's result, whether the cache had it, and the seconds it took."""
        started = time.monotonic()
        kept = self.cache.find(key)
        if kept is not None:
            return kept, True, time.monotonic() - started
        folder = Path(tempfile.mkdtemp(prefix="step-", dir=self.scratch))
        try:
            result = hop.step.run(
                StepRequest(
                    source=hop.parent.path,
                    output_dir=folder,
                    input_shapes=self._shapes(hop.parent),
                    calibration=hop.calibration,
                    settings=hop.settings or QuantizerSettings(),
                    samples=self._samples_file if hop.parent is self.source else None,
                    trust_code=self.trust_code,
                )
            )
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        failure = self.cache.keep(key, folder, result)
        if failure is not None and failure not in self.findings:
            self.findings.append(failure)
        return result, False, time.monotonic() - started

    def _shapes(self, parent: Artifact) -> Mapping[str, Shape]:
        """Give the shapes that the user fixed, until a step into another state has put them in."""
        return self.input_shapes if parent.state == self.source.state else {}

    def _key(self, hop: _Hop) -> str:
        root, calibration = hop.parent is self.source, hop.calibration
        return content_key(
            {
                "source": hop.parent.key,
                "step": hop.step.name,
                "tools": {one.name: _version(one.kind, one.name) for one in hop.step.requires},
                "code": own_code("channels", "coral", "formats", "steps", "quantize", "workers"),
                "shapes": {name: list(shape) for name, shape in self._shapes(hop.parent).items()},
                "settings": repr(hop.settings),
                "calibration": [calibration.sha256, dict(calibration.naming.inputs)] if calibration else None,
                "samples": hash_tree(self._samples_file) if root and self._samples_file else None,
                "trust_code": self.trust_code if root else None,
            }
        )


def calibrates(step: ConversionStep) -> bool:
    """Say whether a step quantizes by calibration data."""
    return step.target.scheme in CALIBRATED and step.source.scheme != step.target.scheme


def parity_failure(source: State, target: State, outputs: Sequence[OutputComparison]) -> str | None:
    """Say which output breaks which limit of a hop, if one does.

    A format hop must keep each output within 1e-3 (float16: 1e-2) of its largest absolute value and a cosine
    of 0.999; a step that leaves format and scheme as they are, within 1e-5; whatever quantizes, or translates
    a quantized model, an SQNR above 6 dB and a cosine above 0.9.
    """
    for output in outputs:
        if source.scheme in FLOATS and target.scheme in FLOATS:
            hop = max(RELATIVE_LIMIT[source.scheme], RELATIVE_LIMIT[target.scheme])
            limit = REPAIR_LIMIT if source == target else hop
            if output.relative > limit or output.cosine < FLOAT_COSINE:
                return (
                    f"output {output.name!r} differs from the source by up to {output.max_abs:.3g}, "
                    f"{output.relative:.2g} of its largest value (allowed {limit:g}), "
                    f"cosine {output.cosine:.4f}"
                )
        elif output.sqnr_db <= QUANTIZED_SQNR_DB or output.cosine <= QUANTIZED_COSINE:
            return (
                f"output {output.name!r} is lost: SQNR {output.sqnr_db:.1f} dB (at least "
                f"{QUANTIZED_SQNR_DB:g}), cosine {output.cosine:.3f} (at least {QUANTIZED_COSINE:g})"
            )
    return None


def _untold(_: str) -> None:
    pass


def _renamed(specs: Sequence[TensorSpec], result: StepResult) -> tuple[TensorSpec, ...]:
    return tuple(replace(spec, name=result.tensor_names.get(spec.name, spec.name)) for spec in specs)


def _unstacked(path: Path) -> list[dict[str, Array]]:
    """Read outputs stacked along the first axis back into one mapping a sample."""
    try:
        return read_golden(path)
    except (OSError, *READ_ERRORS) as error:
        raise ConversionError(f"the source's outputs cannot be read back from {path}: {error}") from error


def _version(kind: str, name: str) -> str:
    if kind == "worker":
        from edgeml_converters.workers import catalogue

        try:
            return f"{catalogue.interpreter(name)}\n{catalogue.pins(name)}"
        except (EdgemlError, OSError) as error:
            raise EngineMissingError(f"worker {name} cannot be used: {error}") from error
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "present"
