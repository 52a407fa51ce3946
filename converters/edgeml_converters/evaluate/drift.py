"""The reference that devices hold their inputs and answers against, made of the data of a conversion."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from edgeml.arrays import Array, dequantize
from edgeml.errors import UsageError
from edgeml.pipeline import finish
from edgeml.preprocess import Postprocess
from edgeml.reference_data import ReferenceMaker
from edgeml.telemetry.reference import Reference
from edgeml.tensors import TensorSpec


def make_reference(
    inputs: Sequence[TensorSpec],
    samples: Iterable[Mapping[str, Array]],
    outputs: Sequence[TensorSpec],
    answers: Iterable[Mapping[str, Array]],
    postprocess: Postprocess,
    labels: Sequence[str],
) -> Reference | None:
    """Make a reference in one pass over samples and one over what the source model gave for them.

    Returns:
        ``None`` for data too few to judge by.
    """
    maker = ReferenceMaker(inputs)
    for sample in samples:
        maker.add_inputs(sample)
    quantizations = {spec.name: spec.quantization for spec in outputs}
    for answer in answers:
        real = {
            name: dequantize(array, known)
            if (known := quantizations.get(name)) is not None and array.dtype.kind in "iu"
            else array
            for name, array in answer.items()
        }
        try:
            maker.add_answer(finish(real, postprocess, labels))
        except UsageError:  # the declaration does not fit the model: it gives no classes on a device either
            break
    return maker.reference()
