"""The contract of a conversion step: one edge between two states of a model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from edgeml.arrays import Array
from edgeml.findings import Finding
from edgeml.tensors import Shape
from edgeml.words import Format, IoDtype, Scheme

Sample = Mapping[str, Array]
"""One sample: input name to array with a batch dimension of 1, in the dtype the float model takes."""


@dataclass(frozen=True, slots=True, order=True)
class State:
    """A format and how its numbers are held."""

    format: Format
    scheme: Scheme

    def __str__(self) -> str:
        """Render as ``onnx/float32``."""
        return f"{self.format}/{self.scheme}"


@dataclass(frozen=True, slots=True)
class Requirement:
    """What a step needs: an importable distribution, or an installed worker."""

    kind: Literal["distribution", "worker"]
    name: str


class Calibration(Protocol):
    """Calibration data as a stream that can be read again and again, one sample at a time."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Sample]: ...

    @property
    def sha256(self) -> str:
        """Hash of the data as the model sees them."""
        ...


CalibrationMethod = Literal["default", "minmax", "percentile"]


@dataclass(frozen=True, slots=True)
class QuantizerSettings:
    """How a quantization step sets its numbers; follows the target's CPU unless asked otherwise."""

    method: CalibrationMethod = "default"
    activations: Literal["uint8", "int8"] = "uint8"
    """Signedness of activations where the format leaves a choice (ONNX)."""
    reduce_range: bool = False
    """7-bit weights, so that u8×s8 products cannot saturate on x86 without VNNI; with corrected biases."""
    per_channel: bool = True
    io_dtype: IoDtype = "float32"
    equalize: bool = False
    """Cross-layer equalization of the float model first: for channels that differ much in size."""
    bias_correction: bool = False
    """Static int8 takes back in the biases what rounded weights add to outputs on average."""
    float_tensors: tuple[str, ...] = ()
    """Activations that static int8 leaves in float32, with the operators that make or take them."""
    sparsity: float = 0.0
    """Share of the weights, those that matter least, that are 0; 0 to 1, where the runtime gains by it."""
    trimmed: bool = False
    """A step before took out the channels that are the same for every input, or that nothing reads."""

    @property
    def corrects_biases(self) -> bool:
        """Whether biases are corrected: because it was asked for, or because weights have 7 bits."""
        return self.bias_correction or self.reduce_range


@dataclass(frozen=True, slots=True)
class StepRequest:
    """What a step is given."""

    source: Path
    """The artifact to convert; never written to."""
    output_dir: Path
    """An empty folder of the step's own; the caller removes it if the step fails."""
    input_shapes: Mapping[str, Shape] = field(default_factory=dict)
    """Shapes the user fixed; the name ``""`` stands for the only input."""
    calibration: Calibration | None = None
    settings: QuantizerSettings = QuantizerSettings()
    samples: Path | None = None
    """An npz with ``<input>`` arrays [N,…]: a step whose source no runtime can run (SavedModel, Keras,
    PyTorch) runs the source model on them and returns its outputs."""
    trust_code: bool = False


@dataclass(frozen=True, slots=True)
class StepResult:
    """What a step made."""

    artifact: Path
    """The file (folder for a SavedModel) inside ``output_dir``; ``words.ARTIFACT_FILE`` names it."""
    source_outputs: Path | None = None
    """The source model's outputs for ``StepRequest.samples``: an npz of output name to [N,…]."""
    tensor_names: Mapping[str, str] = field(default_factory=dict)
    """New name of an input or output to its name in the source, where the step renamed it."""
    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()
    """Sentences for the record: ``opset 9: upgraded to 17``."""
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Calibrated range by tensor, where the quantizer tells."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Distribution to version of the tools that did the work."""


class ConversionStep(Protocol):
    """One edge of the step graph. Importing the step must not import the tools that it needs."""

    @property
    def name(self) -> str:
        """Unique: ``onnx-to-openvino``, ``litert-int8-static``."""
        ...

    @property
    def source(self) -> State: ...

    @property
    def target(self) -> State: ...

    @property
    def requires(self) -> tuple[Requirement, ...]: ...

    @property
    def cost(self) -> float:
        """What the plan minimises: about the seconds the step takes, plus what it loses in fidelity."""
        ...

    def run(self, request: StepRequest) -> StepResult:
        """Do the step.

        Raises:
            ModelFileError: the source is damaged.
            ConversionError: the tool failed or did nothing.
            WorkerError: the worker failed.
        """
        ...
