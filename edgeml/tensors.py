"""What goes into and comes out of a model: names, shapes, dtypes, quantization."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NoReturn

from edgeml.errors import InputNameError

Shape = tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class Quantization:
    """Affine quantization: ``real = (stored - zero_point) * scale``.

    ``scale`` and ``zero_point`` hold one value, or one per slice along ``axis``.
    """

    scale: tuple[float, ...]
    zero_point: tuple[int, ...]
    axis: int | None = None


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output: its name, shape (``None`` is a free dimension) and numpy dtype name."""

    name: str
    shape: Shape
    dtype: str
    quantization: Quantization | None = None

    def __str__(self) -> str:
        """Render as ``name float32[1,49,10,1]``, free dimensions as ``?``."""
        sides = ",".join("?" if side is None else str(side) for side in self.shape)
        return f"{self.name} {self.dtype}[{sides}]"


def shape_fits(spec: TensorSpec, shape: tuple[int, ...]) -> bool:
    """Say whether an array of ``shape`` can be given to the tensor."""
    return len(shape) == len(spec.shape) and all(
        wanted is None or wanted == got for wanted, got in zip(spec.shape, shape, strict=True)
    )


def reject_names(specs: tuple[TensorSpec, ...], given: object) -> NoReturn:
    """Raise the error for a mapping whose keys are not the model's input names."""
    names = ", ".join(spec.name for spec in specs)
    if not isinstance(given, dict):
        raise InputNameError(
            f"run() takes a mapping of input name to array, got {type(given).__name__}; inputs are: {names}"
        )
    known = {spec.name for spec in specs}
    unknown = [str(name) for name in given if name not in known]
    missing = [spec.name for spec in specs if spec.name not in given]
    what = f"no input {unknown[0]!r}" if unknown else f"input {missing[0]!r} is missing"
    raise InputNameError(f"{what}; inputs are: {names}")
