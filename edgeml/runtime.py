"""The contract of a runtime driver: load an artifact, run it, look inside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self, runtime_checkable

from edgeml.tensors import TensorSpec

if TYPE_CHECKING:
    from edgeml.arrays import Array


@dataclass(frozen=True, slots=True)
class RuntimeOptions:
    """Options every engine has; a driver's own options derive from this."""

    threads: int = 1


@dataclass(frozen=True, slots=True)
class OperatorTime:
    """What one operator of the executed graph cost."""

    name: str
    kind: str
    """The operator's type, with kernel and precision where the engine tells: ``Conv · brgconv_int8``."""
    mean_us: float


class Session(Protocol):
    """A loaded model. May be shared by threads; a driver whose engine cannot, serialises the calls."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The model's inputs, in its own order."""
        ...

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """The model's outputs, in its own order."""
        ...

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run once; arrays returned belong to the caller.

        float32 given for a quantized integer input is quantized. Outputs that are quantized come
        back as stored if any input was passed as stored integers of a quantized input, and
        dequantized to float32 otherwise.

        Raises:
            InputNameError, InputShapeError, InputDtypeError: before the engine sees the data.
            InferenceError: the engine failed.
        """
        ...

    def close(self) -> None:
        """Free the engine's memory; running afterwards raises InferenceError. Idempotent."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class Runtime(Protocol):
    """One engine. A driver is a class whose constructor takes nothing, named by its entry point."""

    @property
    def name(self) -> str:
        """The entry point's name: ``litert``, ``onnxruntime``, ``openvino``."""
        ...

    @property
    def version(self) -> str:
        """The installed engine's version."""
        ...

    def options(self, values: Mapping[str, str]) -> RuntimeOptions:
        """Read the engine's typed options from ``key=value`` texts.

        Raises:
            UsageError: an unknown key or a value that does not parse; names the known keys.
        """
        ...

    def load(self, artifact: Path, options: RuntimeOptions | None = None) -> Session:
        """Load an artifact of this runtime's format.

        Raises:
            ModelFileError: the file is missing, damaged, or of another format.
            InferenceError: the engine refuses the model (unknown operator, say).
        """
        ...


@runtime_checkable
class Profiler(Protocol):
    """A runtime that can time its operators."""

    def profile(
        self,
        artifact: Path,
        inputs: Mapping[str, Array],
        options: RuntimeOptions | None = None,
        runs: int = 50,
    ) -> tuple[OperatorTime, ...]:
        """Time each operator of the graph as executed, in execution order; means over ``runs``."""
        ...


@runtime_checkable
class TensorTap(Protocol):
    """A runtime that can show intermediate tensors."""

    def load_tapped(self, artifact: Path, options: RuntimeOptions | None = None) -> Session:
        """Load so that ``run`` returns every readable tensor by name, in graph order, outputs included.

        Quantized intermediate tensors come back dequantized.
        """
        ...
