"""One pass of a loaded model over labelled data: its metric, and how far it is from the source."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from edgeml.arrays import Array
from edgeml.runtime import Session
from edgeml.tensors import TensorSpec
from edgeml_converters.compare.outputs import ModelTally, OutputComparison
from edgeml_converters.evaluate.confusion import ClassChange, ClassChanges
from edgeml_converters.evaluate.metrics import Metric
from edgeml_converters.evaluate.slices import SliceTallies, SliceValue, sliced
from edgeml_converters.evaluate.spool import Spool


@dataclass(frozen=True, slots=True)
class Naming:
    """How an artifact calls the source's inputs and outputs: source name to its own."""

    inputs: Mapping[str, str]
    outputs: Mapping[str, str]

    @classmethod
    def own(cls, inputs: Iterable[TensorSpec], outputs: Iterable[TensorSpec]) -> Naming:
        """Give the naming of the source itself."""
        return cls({spec.name: spec.name for spec in inputs}, {spec.name: spec.name for spec in outputs})

    def fed(self, sample: Mapping[str, Array]) -> dict[str, Array]:
        """Give a sample under the artifact's names."""
        return {self.inputs.get(name, name): array for name, array in sample.items()}

    def run(self, session: Session, sample: Mapping[str, Array]) -> dict[str, Array]:
        """Run a sample given under the source's names; outputs come back under the source's names."""
        made = session.run(self.fed(sample))
        return {name: made[own] for name, own in self.outputs.items()}


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What one pass found."""

    count: int
    value: float | None
    """The metric's; ``None`` without labels or metric."""
    compared: tuple[OutputComparison, ...]
    """Against the source's outputs; empty for the source itself."""
    slices: tuple[SliceValue, ...] = ()
    """The metric of each class, or of each part that the data declare."""
    classes: tuple[SliceValue, ...] = ()
    """The metric of each class, where the data declare other parts."""
    changes: tuple[ClassChange, ...] = ()
    """Samples that are in another class than the source puts them into."""


def evaluate(
    run: Callable[[Mapping[str, Array]], dict[str, Array]],
    samples: Iterable[Mapping[str, Array]],
    *,
    labels: Array | None = None,
    metric: Metric | None = None,
    reference: Spool | None = None,
    keep: Spool | None = None,
    slices: Array | None = None,
) -> Evaluation:
    """Run every sample once.

    Args:
        run: gives a sample's outputs under the source's names.
        samples: under the source's names, batch dimension included.
        labels: one for each sample.
        metric: judges outputs against labels.
        reference: the source's outputs for the same samples, to compare with.
        keep: takes the outputs.
        slices: the part that each sample belongs to; ``None``: parts are the classes, where labels are such.

    Raises:
        DataError: labels that the metric cannot use.
        InferenceError: the model failed on a sample.
    """
    judged = metric is not None and (labels is not None or not metric.needs_labels)
    tally = metric.start() if metric is not None and judged else None
    parted = SliceTallies(metric, sliced(metric, labels) if slices is None else slices)
    classed = SliceTallies(metric, None if slices is None else sliced(metric, labels))
    wanted = iter(reference) if reference is not None else None
    comparison = ModelTally()
    changes = ClassChanges(metric)
    count = 0
    for sample in samples:
        outputs = run(sample)
        label = None if labels is None else labels[count]
        if tally is not None:
            tally.add(outputs, label)
            parted.add(count, outputs, label)
            classed.add(count, outputs, label)
        if wanted is not None:
            before = next(wanted)
            comparison.add(before, outputs)
            changes.add(before, outputs, label)
        if keep is not None:
            keep.append(outputs)
        count += 1
    return Evaluation(
        count,
        tally.value() if tally is not None else None,
        comparison.result(),
        parted.values(),
        classed.values(),
        changes.result(),
    )
