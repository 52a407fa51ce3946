"""What the steps have in common: their edge, and the guard around the tool that does the work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgeml.converter import Requirement, State, StepRequest, StepResult
from edgeml.engine_text import engine_text
from edgeml.errors import ConversionError, EdgemlError, EngineMissingError
from edgeml.tensors import Shape
from edgeml.words import Format, Scheme
from edgeml_converters.formats.files import hash_tree
from edgeml_converters.formats.safety import check

LONGEST: Final = 400
"""Characters of an engine's message that are passed on."""


@dataclass(frozen=True, slots=True)
class FormatStep:
    """A step between two formats. ``action`` does the work and imports its tools when it is called."""

    name: str
    source: State
    target: State
    requires: tuple[Requirement, ...]
    cost: float
    """Seconds, as measured on small models with imports included, plus what fidelity is lost."""
    action: Callable[[StepRequest], StepResult]

    def run(self, request: StepRequest) -> StepResult:
        """Do the step; the source is verified to be the same afterwards."""
        check(request.source, self.source.format, trust_code=request.trust_code)
        before = hash_tree(request.source)
        result = self.action(request)
        if hash_tree(request.source) != before:
            raise ConversionError(
                f"{self.name}: {request.source} was changed while it was converted; "
                f"restore it, and keep other programs from writing to it"
            )
        return result


def state(format_: Format, scheme: Scheme = "float32") -> State:
    """Give a state; float32 unless said otherwise."""
    return State(format_, scheme)


def distributions(*names: str) -> tuple[Requirement, ...]:
    """Give requirements on distributions."""
    return tuple(Requirement("distribution", name) for name in names)


@contextmanager
def tool_errors(
    step: str,
    source: Path,
    *,
    kind: type[EdgemlError] = ConversionError,
    failed: str = "",
    remedy: str = "",
) -> Iterator[None]:
    """Turn whatever a tool raises into an error of ours; our own errors pass.

    Args:
        step: the step's name.
        source: what is converted.
        kind: the error to raise.
        failed: what could not be done with the source, where the step's name does not say it.
        remedy: what to do next.
    """
    try:
        yield
    except (EdgemlError, MemoryError, OSError):
        raise
    except ModuleNotFoundError as error:
        raise EngineMissingError(
            f"{step} needs {error.name!r}, which is not installed. "
            f"Install it: pip install 'edgeml-core[workstation]'"
        ) from error
    except Exception as error:
        what = f"{source.name} {failed}" if failed else source.name
        told = f"{step}: {what}: {engine_text(error, LONGEST)}"
        raise kind(f"{told}; {remedy}" if remedy else told) from error


def fixed_shape(name: str, shape: Shape, wanted: dict[str, Shape] | None, *, only: bool) -> tuple[int, ...]:
    """Give an input's static shape: what the user fixed, else the model's own with a free batch set to 1.

    Raises:
        ConversionError: another dimension than the batch is free and no size was given, or the given
            size contradicts the model.
    """
    given = _given(name, wanted or {}, only=only)
    if given is not None:
        if len(given) != len(shape) or any(
            own is not None and own != side for own, side in zip(shape, given, strict=True)
        ):
            raise ConversionError(
                f"input {name!r} has the shape {_text(shape)}, which cannot be made {_text(given)}; "
                f"correct --input-shape"
            )
        shape = given
    sides = [1 if position == 0 and side is None else side for position, side in enumerate(shape)]
    if any(side is None for side in sides):
        example = ",".join("224" if side is None else str(side) for side in sides)
        raise ConversionError(
            f"input {name!r} has the free dimensions {_text(shape)}; "
            f"give their sizes, for example: --input-shape {name}={example}"
        )
    return tuple(side for side in sides if side is not None)


def check_shape_names(wanted: dict[str, Shape], names: list[str]) -> None:
    """Refuse shapes given for inputs that the model does not have."""
    for name in wanted:
        if name not in names and not (name == "" and len(names) == 1):
            what = "a shape without a name" if name == "" else f"a shape for {name!r}"
            raise ConversionError(f"{what} was given, but the inputs are: {', '.join(names)}")


def _given(name: str, wanted: dict[str, Shape], *, only: bool) -> Shape | None:
    return wanted.get(name) or (wanted.get("") if only else None)


def _text(shape: Shape) -> str:
    return "(" + ", ".join("?" if side is None else str(side) for side in shape) + ")"
