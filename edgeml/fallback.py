"""A model for an accelerator that goes on on the CPU where the accelerator cannot be used, or fails."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from edgeml.errors import AcceleratorError, BundleError, InferenceError
from edgeml.runtime import Session
from edgeml.tensors import Quantization, TensorSpec

if TYPE_CHECKING:
    from edgeml.arrays import Array

ON_CPU: Final = "+cpu"
"""What telemetry adds to the name of a variant that runs on the CPU in place of its accelerator."""


class FallbackWarning(UserWarning):
    """A model that was compiled for an accelerator runs on the CPU."""


class FallingBack:
    """A session on an accelerator; once that fails, one of the source model on the CPU, for good.

    It does not go back: a model that is loaded again tries the accelerator again.
    """

    __slots__ = (
        "_file",
        "_first",
        "_is_closed",
        "_load_source",
        "_lock",
        "_name",
        "_second",
        "inputs",
        "outputs",
        "reason",
    )

    def __init__(
        self, name: str, file: Path, load: Callable[[], Session], load_source: Callable[[], Session]
    ) -> None:
        """Load for the accelerator, else from the source.

        Args:
            name: what is said to run on the CPU.
            file: that ``load`` loads.
            load: for the accelerator.
            load_source: for the CPU; called when it is needed.

        Raises:
            EdgemlError: what ``load`` raises other than AcceleratorError, and what ``load_source`` raises.
        """
        self._name, self._file, self._load_source = name, file, load_source
        self._lock = Lock()
        self._is_closed = False
        self._first: Session | None = None
        self._second: Session | None = None
        self.reason: str | None = None
        """Why it runs on the CPU; ``None``: it does not."""
        try:
            self._first = load()
        except AcceleratorError as error:
            loaded = self._fall_back(error)
        else:
            loaded = self._first
        self.inputs: tuple[TensorSpec, ...] = loaded.inputs
        self.outputs: tuple[TensorSpec, ...] = loaded.outputs

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        if self._second is not None:
            return self._second.run(inputs)
        try:
            return self._first.run(inputs)  # type: ignore[union-attr] # one of the two was loaded
        except AcceleratorError as error:
            return self._fall_back(error).run(inputs)

    def _fall_back(self, error: AcceleratorError) -> Session:
        """Load the source, once. What failed stays open: other threads may be in it."""
        with self._lock:
            if self._second is not None:
                return self._second
            if self._is_closed:
                raise InferenceError("this session is closed; load the model again")
            second = self._load_source()
            if self._first is not None and not _are_alike(self._first, second):
                second.close()
                raise BundleError(
                    f"{self._name}: its source model has other inputs or outputs than the compiled one; "
                    f"it cannot take its place ({error})"
                )
            reason = str(error).removeprefix(f"{self._file}: ")
            self._second, self.reason = second, reason
        text = f"{self._name} runs on the CPU, from its source: {reason}"
        warnings.warn(text, FallbackWarning, stacklevel=2)
        return second

    def close(self) -> None:
        with self._lock:
            self._is_closed = True
        for session in (self._first, self._second):
            if session is not None:
                session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def reason_of(session: Session) -> str | None:
    """Say why a session runs on the CPU in place of its accelerator; ``None``: it does not."""
    return session.reason if isinstance(session, FallingBack) else None


def _are_alike(one: Session, other: Session) -> bool:
    return _described(one) == _described(other)


def _described(session: Session) -> list[tuple[str, str, Quantization | None]]:
    return [(spec.name, spec.dtype, spec.quantization) for spec in (*session.inputs, *session.outputs)]
