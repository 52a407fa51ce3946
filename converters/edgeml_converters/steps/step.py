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
