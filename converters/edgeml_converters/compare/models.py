"""`edgeml compare`: two models on the same data, their outputs and the first tensor that diverges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from edgeml.arrays import Array
from edgeml.data import DataDeclaration, open_declared
from edgeml.errors import ConversionError
from edgeml.preprocess import Preprocess
from edgeml.tensors import Shape
from edgeml.words import FLOATS
from edgeml_converters.compare.outputs import ModelTally, OutputComparison
from edgeml_converters.compare.tensors import (
    FLOAT_THRESHOLDS,
    QUANTIZED_THRESHOLDS,
    TensorMatch,
    first_divergence,
    match_tensors,
    tapped_values,
)
from edgeml_converters.evaluate.accuracy import Naming
from edgeml_converters.formats.files import hash_tree
from edgeml_converters.formats.scheme import state_of
from edgeml_converters.formats.shapes import with_shapes
from edgeml_converters.report.plain import finite
from edgeml_converters.report.record import comparison_document
from edgeml_converters.variants.artifact import (
    Artifact,
    match_signature,
    random_samples,
    runs_here,
)
from edgeml_converters.variants.step_runner import PROBED_SAMPLES

RANDOM_SAMPLES: Final = 16


@dataclass(frozen=True, slots=True)
class Comparison:
    """What the comparison of two models found."""

    reference: Path
    other: Path
    samples: int
    random: bool
    """No data were given: samples were drawn with a fixed seed."""
    outputs: tuple[OutputComparison, ...]
    tensors: tuple[TensorMatch, ...]
    """Intermediate tensors that could be paired, in graph order; empty if a runtime cannot show them."""
    diverges: TensorMatch | None
    """The first that is further off than the schemes explain."""

    def to_json(self) -> dict[str, Any]:
        """Give what ``edgeml compare --json`` prints; docs/reference/json.md describes it."""
        return {
            "reference": str(self.reference),
            "other": str(self.other),
            "samples": self.samples,
            "random": self.random,
            "outputs": [
                {
                    **comparison_document(one),
                    "other": one.name,
                    "relative": finite(one.relative),
                    "nan_samples": one.nan_samples,
                }
                for one in self.outputs
            ],
            "tensors": [_document(one) for one in self.tensors],
            "first_divergence": _document(self.diverges) if self.diverges is not None else None,
        }


def _document(match: TensorMatch) -> dict[str, Any]:
    return asdict(match) | {"max_abs": finite(match.max_abs), "relative": finite(match.relative)}


def compare_models(
    reference: Path,
    other: Path,
    *,
    data: DataDeclaration | None,
    preprocess: Preprocess,
    input_shapes: Mapping[str, Shape],
) -> Comparison:
    """Run both models on the same samples, whatever their formats, and compare.

    Raises:
        ModelFileError: a file is damaged or foreign.
        ConversionError: no runtime here runs one of them, or their signatures do not pair.
        DataError: data that do not fit.
    """
    left, right = _opened(reference), _opened(other)
    left.inputs = with_shapes(left.inputs, input_shapes)
    left.naming = Naming.own(left.inputs, left.outputs)
    try:
        right.naming = _paired(left, right)
        if data is None:
            samples: Sequence[dict[str, Array]] = random_samples(left.inputs, RANDOM_SAMPLES)
            return _compared(left, right, samples, random=True)
        opened = open_declared(data, inputs=left.inputs, preprocess=preprocess)
        return _compared(left, right, opened, random=False)
    finally:
        left.release()
        right.release()


def _paired(left: Artifact, right: Artifact) -> Naming:
    """Pair the signatures of two models that were given by a person.

    Raises:
        ConversionError: they take or give something else.
    """
    try:
        return match_signature("compare", left, right.inputs, right.outputs, {})[0]
    except ConversionError as error:
        raise ConversionError(
            f"{left.path.name} and {right.path.name} cannot be compared: "
            f"{_signature(left)}; {_signature(right)}. Give two files of one model"
        ) from error


def _signature(one: Artifact) -> str:
    taken, given = (", ".join(map(str, specs)) for specs in (one.inputs, one.outputs))
    return f"{one.path.name} takes {taken} and gives {given}"


def _opened(path: Path) -> Artifact:
    artifact = Artifact(path, state_of(path), hash_tree(path))
    if not runs_here(artifact.state.format):
        raise ConversionError(
            f"{path}: no runtime here runs {artifact.state.format}; "
            f"convert it first (edgeml convert {path.name})"
        )
    session = artifact.session()
    artifact.inputs, artifact.outputs = session.inputs, session.outputs
    return artifact


def _compared(left: Artifact, right: Artifact, samples: Any, *, random: bool) -> Comparison:
    tally = ModelTally()
    count, probed = 0, []
    for sample in samples:
        tally.add(left.run(sample), right.run(sample))
        if count < PROBED_SAMPLES:
            probed.append(sample)
        count += 1
    left.release()
    right.release()
    exact = left.state.scheme in FLOATS and right.state.scheme in FLOATS
    limits = FLOAT_THRESHOLDS if exact else QUANTIZED_THRESHOLDS
    shown = [tapped_values(one.runtime, one.path, one.naming, probed) for one in (left, right)]
    tensors = match_tensors(shown[0] or (), shown[1] or (), limits)
    return Comparison(
        reference=left.path,
        other=right.path,
        samples=count,
        random=random,
        outputs=tally.result(),
        tensors=tensors,
        diverges=first_divergence(tensors, limits),
    )
