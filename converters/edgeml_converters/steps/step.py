"""What the steps have in common: their edge, and the guard around the tool that does the work."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgeml.converter import Requirement, State, StepRequest, StepResult
from edgeml.errors import ConversionError, EdgemlError, EngineMissingError
from edgeml.tensors import Shape
from edgeml.words import Format, Scheme
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
        before = tree_hash(request.source)
        result = self.action(request)
        if tree_hash(request.source) != before:
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
def tool_errors(step: str, source: Path) -> Iterator[None]:
    """Turn whatever a tool raises into ConversionError; our own errors pass."""
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
        raise ConversionError(f"{step}: {source.name}: {first_line(error)}") from error


def first_line(error: BaseException) -> str:
    """Give the sentence of an engine's message that says what happened, without its source locations."""
    report, found, summary = str(error).partition("Summary:\n")
    if found:
        return _of_report(report, summary)[:LONGEST]
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if _tells(line)] or lines or [type(error).__name__]
    # a heading says nothing without what stands under it
    count = next((i for i, line in enumerate(told) if not line.endswith(":")), len(told) - 1) + 1
    return " ".join(told[:count])[:LONGEST]


def _of_report(report: str, summary: str) -> str:
    """Read OpenVINO's report: the operators in its summary, and why the first one failed, if it says so."""
    named = [line.strip().removeprefix("--").strip() for line in summary.splitlines() if line.strip()]
    _, failed, log = report.partition(" with a message:\n")
    why = next((line.strip() for line in reversed(log.splitlines()) if _tells(line.strip())), "")
    return "; ".join(named) + (f" ({why})" if failed and why else "")


def _tells(line: str) -> bool:
    return bool(line) and not line.startswith(("Exception from", "Check '", "FrontEnd API failed"))


def tree_hash(path: Path) -> str:
    """Hash a file, or a folder's names and contents, as hex sha256."""
    digest = hashlib.sha256()
    files = sorted(item for item in path.rglob("*") if item.is_file()) if path.is_dir() else [path]
    for item in files:
        digest.update(f"{item.relative_to(path).as_posix()}\0".encode())
        with item.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


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
