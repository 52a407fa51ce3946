"""What ``record.json`` says of a conversion, as far as it takes to do that again."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgeml import typed_json
from edgeml.bundle import is_bundle
from edgeml.bundle_place import RECORD
from edgeml.converter import CalibrationMethod
from edgeml.data import DataDeclaration
from edgeml.errors import MessageError
from edgeml.health import HealthPolicy
from edgeml.installed import open_release
from edgeml.preprocess import Postprocess, Preprocess
from edgeml.words import IoDtype
from edgeml_converters.report.record import SCHEMA
from edgeml_converters.variants.gates import Gates, Objective


@dataclass(frozen=True, slots=True)
class RecordedSource:
    """The model that was converted."""

    path: str
    """Its name alone."""
    sha256: str


@dataclass(frozen=True, slots=True)
class RecordedOptions:
    """What was asked for, and how what was left open was decided."""

    targets: tuple[str, ...]
    schemes: tuple[str, ...]
    runtimes: tuple[str, ...]
    calibration: DataDeclaration | None
    evaluation: DataDeclaration | None
    metric: str | None
    golden: int
    preprocess: Preprocess
    postprocess: Postprocess
    label_names: tuple[str, ...]
    health: HealthPolicy
    name: str
    release: int
    io_dtype: IoDtype | None
    method: CalibrationMethod
    input_shapes: Mapping[str, tuple[int, ...]]
    gates: Gates
    drift_reference: bool
    searches: bool = False
    accuracy_control: bool = False
    compiles: bool = False
    objective: Objective = "latency"
    sparsity: float | None = None
    budget_s: float = math.inf


@dataclass(frozen=True, slots=True)
class RecordedFinding:
    """A finding, by its code."""

    code: str


@dataclass(frozen=True, slots=True)
class RecordedVariant:
    """One row."""

    name: str
    status: str
    size_bytes: int | None = None
    sha256: str | None = None
    accuracy: float | None = None
    findings: tuple[RecordedFinding, ...] = ()


@dataclass(frozen=True, slots=True)
class RecordedData:
    """Calibration or evaluation data."""

    role: str
    count: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Record:
    """A conversion."""

    schema: int
    source: RecordedSource
    options: RecordedOptions
    tools: Mapping[str, str]
    data: tuple[RecordedData, ...]
    variants: tuple[RecordedVariant, ...]

    @property
    def budget_s(self) -> float:
        """The time that trials had where it ended them, else all that they need on another machine."""
        spent = any(one.code == "budget-spent" for row in self.variants for one in row.findings)
        return self.options.budget_s if spent else math.inf


def read_record(path: Path) -> Record:
    """Read a record, from a file or out of a bundle.

    Raises:
        MessageError: not JSON, or no record of this schema.
    """
    text = open_release(path).read(RECORD) if is_bundle(path) else path.read_bytes()
    found = typed_json.parse(text, str(path))
    if not isinstance(found, dict) or "source" not in found or found.get("schema") != SCHEMA:
        raise MessageError(f"{path} is no record of a conversion; edgeml convert writes one into each bundle")
    return typed_json.read(Record, found, str(path))
