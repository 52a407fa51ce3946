"""Makes one row: runs its steps, evaluates the artifact, takes its golden outputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from edgeml import plugins
from edgeml.arrays import Array
from edgeml.converter import ConversionStep
from edgeml.errors import (
    EdgemlError,
    EngineMissingError,
    EngineVersionError,
    PlanError,
    UsageError,
    WorkerMissingError,
)
from edgeml.findings import Finding
from edgeml.manifest import Measured
from edgeml.tensors import TensorSpec
from edgeml_converters.compare.outputs import SQNR_OF_EQUAL_DB, ModelTally, OutputComparison, worst_sqnr_db
from edgeml_converters.evaluate.accuracy import Evaluation, evaluate
from edgeml_converters.evaluate.golden import save_golden, tolerance
from edgeml_converters.evaluate.lints import check_labels
from edgeml_converters.evaluate.metrics import Metric, open_metric
from edgeml_converters.evaluate.samples import Samples
from edgeml_converters.evaluate.slices import SliceDrop, slice_drops
from edgeml_converters.evaluate.spool import Spool
from edgeml_converters.formats.files import hash_tree, size_bytes
from edgeml_converters.sensitivity.noise import Sensitivity
from edgeml_converters.variants.artifact import OPTIONS, Artifact, runs_here
from edgeml_converters.variants.edge_tpu import with_rewrites
from edgeml_converters.variants.request import Request
from edgeml_converters.variants.rows import Row
from edgeml_converters.variants.step_runner import Executor

HOW_LABELS: Final = (
    "give them as data.npz:x,y, as a column called label in a .csv, as folders named by class, "
    "with --labels, or as labels = … in [evaluation] of --config"
)
LACKING = (EngineMissingError, EngineVersionError, WorkerMissingError, PlanError)
"""Errors that say what this machine lacks, not that the model cannot be converted."""


@dataclass(slots=True)
class Evaluator:
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
    _outputs: Spool | None = None
    _judged: dict[str, tuple[Evaluation, list[dict[str, Array]]]] = field(default_factory=dict)

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

    def golden_inputs(self) -> list[dict[str, Array]]:
        """Give the golden samples: the first of what the model will see."""
        known = self.evaluation or self.calibration
        samples = self.executor.samples if known is None else known.spool.first(self.request.golden)
        return samples[: self.request.golden]

    @property
    def reference_outputs(self) -> Spool | None:
        """What the source, or what stands for it, gave for each sample of the evaluation data."""
        return self._outputs

    def judge_source(self) -> None:
        """Evaluate the source itself, where it can be run here."""
        source = self.executor.source
        if source.inputs and runs_here(source.state.format):
            self._judge(source)

    def make(self, row: Row, steps: Sequence[ConversionStep]) -> Row:
        """Make, evaluate and describe one row; a failure becomes its status and reason."""
        made = self._made(row, steps)
        self.tried.append(made)
        return made

    def _made(self, row: Row, steps: Sequence[ConversionStep]) -> Row:
        calibration = self.calibration.spool if self.calibration is not None else None
        artifact: Artifact | None = None
        try:
            make = with_rewrites if row.edge_tpu else Executor.make
            artifact = make(self.executor, steps, row.settings, calibration)
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
        evaluation, golden = self._judge(artifact)
        reference = self.reference.value if self.reference is not None else None
        compared = evaluation.compared or self._against_source(artifact)
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
                sqnr_db=SQNR_OF_EQUAL_DB if artifact is self.executor.source else worst_sqnr_db(compared),
            ),
            drop_points=drop,
            slices=self._slices(evaluation),
            outputs_compared=compared,
            steps=steps,
            findings=findings,
            inputs=session.inputs,
            outputs=session.outputs,
            options=OPTIONS.get(row.runtime, {}),
            runtime_version=plugins.runtime(row.runtime).version,
        )
        return self._with_golden(described, golden)

    def _slices(self, evaluation: Evaluation) -> tuple[SliceDrop, ...]:
        if self.metric is None or self.reference is None:
            return ()
        return slice_drops(self.metric, self.reference.slices, evaluation.slices)

    def _judge(self, artifact: Artifact) -> tuple[Evaluation, list[dict[str, Array]]]:
        """Evaluate an artifact once; the first that is judged becomes the reference."""
        if artifact.key in self._judged:
            return self._judged[artifact.key]
        if self.evaluation is None:
            found = Evaluation(0, None, ())
        else:
            self.executor.tell(f"evaluate {artifact.state}")
            first = self._outputs is None and artifact.state.scheme == self.executor.source.state.scheme
            keep = Spool(self.executor.scratch / "reference.outputs") if first else None
            if artifact is self.executor.source:
                self._check_labels(artifact)
            try:
                found = evaluate(
                    artifact.run,
                    self.evaluation.spool,
                    labels=self.evaluation.labels,
                    metric=self.metric,
                    reference=self._outputs,
                    keep=keep,
                    slices=self.evaluation.slices,
                )
            finally:
                if keep is not None:
                    keep.close()
            if keep is not None:
                self._outputs, self.reference = keep, found
                self.reference_by = str(artifact.state)
        golden = [artifact.run(sample) for sample in self.golden_inputs()]
        self._judged[artifact.key] = (found, golden)
        return found, golden

    def _against_source(self, artifact: Artifact) -> tuple[OutputComparison, ...]:
        """Compare with the source on the parity samples, where there are no evaluation data."""
        source = self.executor.source
        if not artifact.parity or not source.parity or artifact is source:
            return ()
        tally = ModelTally([(name, name) for name in artifact.parity[0]])
        for left, right in zip(source.parity, artifact.parity, strict=True):
            tally.add(left, right)
        return tally.result()

    def _with_golden(self, row: Row, golden: list[dict[str, Array]]) -> Row:
        if not golden:
            return row
        path = save_golden(self.executor.scratch / "golden" / f"{row.name}.npz", golden)
        known = self._judged.get(self.executor.source.key)
        quantized = [spec.quantization for spec in row.outputs if spec.quantization is not None]
        step = max((max(one.scale) for one in quantized), default=None)
        return replace(
            row, golden=path, tolerance=tolerance(row.scheme, known[1] if known else (), golden, step)
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
