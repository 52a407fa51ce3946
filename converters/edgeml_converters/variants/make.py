"""Makes one row: runs its steps, evaluates the artifact, takes its golden outputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Literal

from edgeml import plugins
from edgeml.arrays import Array
from edgeml.converter import ConversionStep, QuantizerSettings
from edgeml.errors import (
    EdgemlError,
    EngineMissingError,
    EngineVersionError,
    NothingToQuantizeError,
    PlanError,
    UsageError,
    WorkerMissingError,
)
from edgeml.findings import Finding
from edgeml.manifest import Measured
from edgeml.tensors import TensorSpec
from edgeml_converters.compare.outputs import SQNR_OF_EQUAL_DB, OutputComparison, compared, worst_sqnr_db
from edgeml_converters.evaluate.accuracy import Evaluation, evaluate
from edgeml_converters.evaluate.golden import save_golden, tolerance
from edgeml_converters.evaluate.lints import check_labels
from edgeml_converters.evaluate.metrics import Metric, open_metric
from edgeml_converters.evaluate.samples import Samples
from edgeml_converters.evaluate.slices import SliceDrop, slice_drops, sliced
from edgeml_converters.evaluate.spool import Spool
from edgeml_converters.formats.files import hash_tree, size_bytes
from edgeml_converters.sensitivity.noise import Sensitivity
from edgeml_converters.variants.artifact import OPTIONS, Artifact, runs_here
from edgeml_converters.variants.edge_tpu import with_rewrites
from edgeml_converters.variants.judgements import Judgement, JudgementCache, content_of, judgement_key
from edgeml_converters.variants.request import Request
from edgeml_converters.variants.rows import Row
from edgeml_converters.variants.step_runner import Executor

HOW_LABELS: Final = (
    "give them as data.npz:x,y, as a column called label in a .csv, as folders named by class, "
    "with --labels, or as labels = … in [evaluation] of --config"
)
LACKING = (EngineMissingError, EngineVersionError, WorkerMissingError, PlanError, NothingToQuantizeError)
"""Errors that say what this machine lacks, or that a scheme is not for this model; nothing is broken."""


@dataclass(slots=True)
class Maker:
    """Makes rows from one source and judges them by the same data."""

    request: Request
    executor: Executor
    calibration: Samples | None
    evaluation: Samples | None
    findings: tuple[Finding, ...]
    metric: Metric | None = None
    reference: Evaluation | None = None
    """The source's own accuracy, or that of the first float artifact where nothing here runs the source."""
    reference_by: str = ""
    tried: list[Row] = field(default_factory=list)
    """Every row that was made and judged, or that failed, in the order of the trials."""
    rankings: dict[str, tuple[Sensitivity, ...]] = field(default_factory=dict)
    """By the row that accuracy control ranked: its activations, what loses most first."""
    judgements: JudgementCache = field(default_factory=lambda: JudgementCache(None))
    _referred: Artifact | None = None
    """What ``reference`` is of."""
    _outputs: Spool | None = None
    """Its outputs: made when they are asked for, if what was found of it is known from before."""
    _judged: dict[str, Judgement] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.evaluation is None:
            return
        post = self.request.postprocess
        name = self.request.metric or self._default_metric(self.evaluation)
        if name is not None:
            self.metric = open_metric(name.replace("top-", "top"), post.output, post.label_offset)
        if self.metric is not None and self.metric.needs_labels and self.evaluation.labels is None:
            raise UsageError(
                f"metric {self.metric.name} needs labels, and {self.evaluation.source} has none; {HOW_LABELS}"
            )
        self._check_gates(self.evaluation)

    def _check_gates(self, evaluation: Samples) -> None:
        """Refuse gates that these data cannot show.

        Raises:
            UsageError: one on accuracy without labels, or on classes without any.
        """
        gates = self.request.gates
        if self.metric is None and (gates.max_drop is not None or gates.max_slice_drop is not None):
            raise UsageError(
                f"a gate on accuracy needs labels, and {evaluation.source} has none; {HOW_LABELS}"
            )
        parted = evaluation.slices is not None or sliced(self.metric, evaluation.labels) is not None
        if gates.max_slice_drop is not None and not parted:
            raise UsageError(
                f"--max-slice-drop: by {self.metric.name if self.metric else 'no metric'} no class of "
                f"{evaluation.source} can be judged by itself; say what parts the samples with --slices"
            )

    def golden_inputs(self) -> list[dict[str, Array]]:
        """Give the golden samples: the first of what the model will see."""
        known = self.evaluation or self.calibration
        samples = self.executor.samples if known is None else known.spool.first(self.request.golden)
        return samples[: self.request.golden]

    @property
    def samples_read(self) -> tuple[Samples, ...]:
        """The data that were read, calibration first."""
        return tuple(one for one in (self.calibration, self.evaluation) if one is not None)

    @property
    def calibration_spool(self) -> Spool | None:
        """What quantizers are given; ``None`` without calibration data."""
        return self.calibration.spool if self.calibration is not None else None

    @property
    def reference_outputs(self) -> Spool | None:
        """What the source, or what stands for it, gave for each sample of the evaluation data."""
        if self._outputs is None and self._referred is not None and self.evaluation is not None:
            self.executor.tell(f"run {self._referred.state}")
            outputs = map(self._referred.run, self.evaluation.spool)
            self._outputs = Spool.of(self.executor.scratch / "reference.outputs", outputs)
            self._referred.release()
        return self._outputs

    def for_process(self, scratch: Path) -> Maker:
        """Give a copy that another process can be handed: no engine in it, and nothing that was tried.

        The reference's outputs are in it, so that one process makes them for all.
        """
        outputs = self.reference_outputs
        executor = self.executor.for_process(scratch)
        copy = replace(self, executor=executor, findings=(), tried=[], rankings={}, _outputs=outputs)
        copy.metric = None  # may be the user's own code: opened again there
        return copy

    def here(self, progress: Callable[[str], None]) -> Maker:
        """Give what this process was handed, ready for work."""
        return replace(self, executor=replace(self.executor, progress=progress))

    def judge_source(self) -> None:
        """Evaluate the source itself, where it can be run here."""
        source = self.executor.source
        if source.inputs and runs_here(source.state.format):
            self._judge(source)

    def trial(self, row: Row, settings: QuantizerSettings) -> Row:
        """Give a row's like by other settings, before it is made."""
        return row.by(settings, asked=self.request.method)

    def make(self, row: Row, steps: Sequence[ConversionStep]) -> Row:
        """Make, evaluate and describe one row; a failure becomes its status and reason."""
        made = self._made(row, steps)
        self.tried.append(made)
        return made

    def _made(self, row: Row, steps: Sequence[ConversionStep]) -> Row:
        artifact: Artifact | None = None
        try:
            make = with_rewrites if row.edge_tpu else Executor.make
            artifact = make(self.executor, steps, row.settings, self.calibration_spool)
            return self._described(row, artifact)
        except LACKING as error:
            return row.without("unavailable", str(error))
        except UsageError:  # what was asked of the metric or the data fits no row
            raise
        except EdgemlError as error:
            return row.without("failed", str(error))
        finally:
            if artifact is not None:
                artifact.release()

    def _described(self, row: Row, artifact: Artifact) -> Row:
        judged = self._judge(artifact)
        evaluation = judged.evaluation
        reference = self.reference.value if self.reference is not None else None
        outputs = evaluation.compared or self._against_source(artifact)
        drop = None
        if self.metric is not None and reference is not None and evaluation.value is not None:
            drop = round(self.metric.drop_points(reference, evaluation.value), 6)
        lineage = artifact.lineage()
        steps = tuple(one.trace for one in lineage if one.trace is not None)
        findings = tuple(dict.fromkeys(finding for one in lineage for finding in one.findings))
        session = artifact.session()
        described = replace(
            row,
            artifact=artifact.path,
            sha256=hash_tree(artifact.path),
            size_bytes=size_bytes(artifact.path),
            measured=Measured(
                accuracy=evaluation.value,
                float_accuracy=reference,
                metric=self.metric.name if self.metric is not None else None,
                sqnr_db=SQNR_OF_EQUAL_DB if artifact is self.executor.source else worst_sqnr_db(outputs),
            ),
            drop_points=drop,
            slices=self._drops(evaluation, "slices"),
            classes=self._drops(evaluation, "classes"),
            changes=evaluation.changes,
            outputs_compared=outputs,
            steps=steps,
            findings=findings,
            inputs=session.inputs,
            outputs=session.outputs,
            options=OPTIONS.get(row.runtime, {}),
            runtime_version=plugins.runtime(row.runtime).version,
        )
        return self._with_golden(described, judged.golden)

    def _drops(self, evaluation: Evaluation, parts: Literal["slices", "classes"]) -> tuple[SliceDrop, ...]:
        if self.metric is None or self.reference is None:
            return ()
        return slice_drops(self.metric, getattr(self.reference, parts), getattr(evaluation, parts))

    def _judge(self, artifact: Artifact) -> Judgement:
        """Evaluate an artifact once; the first that is judged becomes the reference."""
        if artifact.key in self._judged:
            return self._judged[artifact.key]
        if self.evaluation is None:
            found = Judgement(Evaluation(0, None, ()), self._golden_of(artifact))
        else:
            if artifact is self.executor.source:
                self._check_labels(artifact)
            refers = self._referred is None and artifact.state.scheme == self.executor.source.state.scheme
            key = self._key(artifact, self.evaluation)
            kept = self.judgements.find(key)
            found = kept or self._judged_now(artifact, self.evaluation, refers=refers)
            if kept is None:
                self.judgements.keep(key, found)
            if refers:
                self._referred, self.reference = artifact, found.evaluation
                self.reference_by = str(artifact.state)
        self._judged[artifact.key] = found
        return found

    def _judged_now(self, artifact: Artifact, data: Samples, *, refers: bool) -> Judgement:
        reference = self.reference_outputs
        self.executor.tell(f"evaluate {artifact.state}")
        keep = Spool(self.executor.scratch / "reference.outputs") if refers else None
        try:
            found = evaluate(
                artifact.run,
                data.spool,
                labels=data.labels,
                metric=self.metric,
                reference=reference,
                keep=keep,
                slices=data.slices,
            )
        finally:
            if keep is not None:
                keep.close()
        if keep is not None:
            self._outputs = keep
        return Judgement(found, self._golden_of(artifact))

    def _golden_of(self, artifact: Artifact) -> list[dict[str, Array]]:
        return [artifact.run(sample) for sample in self.golden_inputs()]

    def _key(self, artifact: Artifact, data: Samples) -> str | None:
        """Give the key of what is found about an artifact; ``None`` where the user's own code has a say."""
        if artifact.runtime is None or (self.metric is not None and ":" in self.metric.name):
            return None
        post = self.request.postprocess
        return judgement_key(
            artifact=artifact.key,
            naming=[dict(artifact.naming.inputs), dict(artifact.naming.outputs)],
            engine=[
                artifact.runtime,
                plugins.runtime(artifact.runtime).version,
                OPTIONS.get(artifact.runtime),
            ],
            data=[data.sha256, content_of(data.labels), content_of(data.slices)],
            metric=[self.metric.name, post.output, post.label_offset] if self.metric is not None else None,
            golden=self.request.golden,
            reference=self._referred.key if self._referred is not None else None,
        )

    def _against_source(self, artifact: Artifact) -> tuple[OutputComparison, ...]:
        """Compare with the source on the parity samples, where there are no evaluation data."""
        source = self.executor.source
        if not artifact.parity or not source.parity or artifact is source:
            return ()
        return compared(source.parity, artifact.parity)

    def _with_golden(self, row: Row, golden: Sequence[dict[str, Array]]) -> Row:
        if not golden:
            return row
        path = save_golden(self.executor.scratch / "golden" / f"{row.name}-{row.sha256}.npz", golden)
        known = self._judged.get(self.executor.source.key)
        quantized = [spec.quantization for spec in row.outputs if spec.quantization is not None]
        step = max((max(one.scale) for one in quantized), default=None)
        return replace(
            row, golden=path, tolerance=tolerance(row.scheme, known.golden if known else (), golden, step)
        )

    def _check_labels(self, artifact: Artifact) -> None:
        if self.evaluation is None or self.metric is None or not self.metric.is_share:
            return
        classes = class_count(artifact.outputs, self.request.postprocess.output)
        if classes is not None:
            check_labels(self.evaluation.summary, classes, self.request.postprocess.label_offset)

    def _default_metric(self, evaluation: Samples) -> str | None:
        labels = evaluation.labels
        if labels is None:
            return None
        source, output = self.executor.source, self.request.postprocess.output
        one_value = class_count(source.outputs, output) == 1 and (labels.min() < 0 or labels.max() > 1)
        return "mse" if labels.dtype.kind == "f" or one_value else "top1"


def class_count(outputs: Sequence[TensorSpec], name: str | None) -> int | None:
    """Say for how many classes an output holds scores; ``None`` where it holds something else."""
    judged = [spec for spec in outputs if name in (None, spec.name)]
    return judged[0].shape[-1] if judged and judged[0].shape and not _is_class(judged[0]) else None


def _is_class(output: TensorSpec) -> bool:
    """Say whether an output holds the class itself, not a score for each."""
    return "int" in output.dtype and output.quantization is None
