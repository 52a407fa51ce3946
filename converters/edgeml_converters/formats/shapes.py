"""Shapes of a model's inputs: the sizes that a user gives, in the places that the model leaves free."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from edgeml.errors import ConversionError, EdgemlError, UsageError
from edgeml.tensors import Shape, TensorSpec, shape_fits


def with_shapes(specs: Sequence[TensorSpec], wanted: Mapping[str, Shape]) -> tuple[TensorSpec, ...]:
    """Put the shapes that the user fixed in place of the model's own; ``""`` stands for the only input.

    Raises:
        UsageError: a shape for an input that the model does not have, or one that contradicts its own.
    """
    given = _given([spec.name for spec in specs], wanted, UsageError)
    fixed = []
    for spec in specs:
        shape = given.get(spec.name) or spec.shape
        if not shape_fits(spec, tuple(side or 1 for side in shape)):
            raise UsageError(f"--input-shape: {spec} cannot take {shape}; fix only its free dimensions")
        fixed.append(TensorSpec(spec.name, shape, spec.dtype, spec.quantization))
    return tuple(fixed)


def fixed_shapes(own: Mapping[str, Shape | None], wanted: Mapping[str, Shape]) -> dict[str, tuple[int, ...]]:
    """Give inputs' static shapes: what the user fixed, else the model's own with a free batch set to 1.

    Args:
        own: the model's, by input; ``None`` where not even the rank is known.
        wanted: by input, too; ``""`` stands for the only one.

    Raises:
        ConversionError: another dimension than the batch is free and no size was given, or a given shape
            contradicts the model.
    """
    given = _given(own, wanted, ConversionError)
    return {name: _fixed(name, shape, given.get(name)) for name, shape in own.items()}


def _given(names: Collection[str], wanted: Mapping[str, Shape], error: type[EdgemlError]) -> dict[str, Shape]:
    """Give what is wanted by the inputs' own names."""
    found: dict[str, Shape] = {}
    for name, shape in wanted.items():
        own = next(iter(names)) if name == "" and len(names) == 1 else name
        if own not in names:
            what = f"no input {name!r}" if name else "a shape without a name serves a model of one input"
            raise error(f"--input-shape: {what}; inputs are: {', '.join(names)}")
        if any(side is not None and side < 1 for side in shape):
            raise error(f"--input-shape: input {own!r} cannot take {_text(shape)}; give whole numbers from 1")
        found.setdefault(own, shape)
    return found


def _fixed(name: str, own: Shape | None, given: Shape | None) -> tuple[int, ...]:
    shape = own if given is None else given
    if shape is None:
        raise ConversionError(
            f"input {name!r} has no known rank; give its shape, for example: --input-shape {name}=1,3,224,224"
        )
    if own is not None and not shape_fits(TensorSpec(name, own, ""), tuple(side or 1 for side in shape)):
        raise ConversionError(
            f"input {name!r} has the shape {_text(own)}, which cannot be made {_text(shape)}; "
            "correct --input-shape"
        )
    sides = [1 if place == 0 and side is None else side for place, side in enumerate(shape)]
    fixed = tuple(side for side in sides if side is not None)
    if len(fixed) < len(sides):
        example = ",".join("224" if side is None else str(side) for side in sides)
        raise ConversionError(
            f"input {name!r} has the free dimensions {_text(shape)}; "
            f"give their sizes, for example: --input-shape {name}={example}"
        )
    return fixed


def _text(shape: Shape) -> str:
    return "(" + ", ".join("?" if side is None else str(side) for side in shape) + ")"
