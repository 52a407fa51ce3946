"""``drift.json`` of the home folder: what a device says of its models, and what a restart goes on with."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from edgeml import typed_json
from edgeml.atomic import new_file
from edgeml.errors import MessageError
from edgeml.telemetry.cusum import DIRECTIONS, CusumState

DRIFT_FILE: Final = "drift.json"
_SCHEMA: Final = 1
_MOST_BYTES: Final = 4 * 1024 * 1024
_LATEST: Final = 253_402_300_799.0
"""31 December 9999: no date can be made of what is later."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A feature, the classes or all features together, that drifted."""

    name: str
    n: int
    q: float
    """Least false discovery rate at which it is a finding, among all that were judged with it."""
    test: str
    """That speaks loudest …"""
    effect: float
    """… and how much it is: see :class:`edgeml.telemetry.drift.Statistic`."""


@dataclass(frozen=True, slots=True)
class SlowDrift:
    """A change of a feature that is small and lasts."""

    name: str
    direction: str
    """``up``, ``down``, ``wider`` or ``narrower``."""
    since: float | None
    """About when it began, by the wall clock; ``None``: the clock was not set then."""


@dataclass(frozen=True, slots=True)
class ModelDrift:
    """What is said of one release of a model, by one reference."""

    model: str
    release: int
    reference: str
    """Digest."""
    judged: int = 0
    """Features (``classes`` and ``joint`` are one each) that had enough values; 0: it was never judged."""
    at: float | None = None
    """Of the last judgement, the end of the data by the wall clock; ``None``: the clock was not set."""
    seconds: float = 0.0
    """How far back the data reach."""
    values: int = 0
    """That were judged, of the feature that had most; as long as none was judged, those that there are."""
    level: float = 0.0
    """``q`` up to which there is a finding."""
    findings: tuple[Finding, ...] = ()
    """The surest first."""
    sums: Mapping[str, CusumState] = field(default_factory=dict)
    """By feature: where the sums over windows stand."""

    def slow(self) -> tuple[SlowDrift, ...]:
        """Give what drifted so little at a time that only many windows show it."""
        return tuple(
            SlowDrift(name, way, since if math.isfinite(since) else None)
            for name, state in self.sums.items()
            for way, since in zip(DIRECTIONS, state.since, strict=True)
            if way in state.alarms()
        )


@dataclass(frozen=True, slots=True)
class _DriftFile:
    models: tuple[ModelDrift, ...] = ()
    schema: int = _SCHEMA


def read_drift(home: Path) -> tuple[ModelDrift, ...] | None:
    """Read what a device said last of its models; ``None``: nothing was ever judged.

    Raises:
        MessageError: the file is damaged.
        OSError: it cannot be read.
    """
    path = home / DRIFT_FILE
    try:
        if path.stat().st_size > _MOST_BYTES or not path.is_file():
            raise MessageError(f"{path}: is no file, or one of more than {_MOST_BYTES} bytes")
        read = typed_json.read(_DriftFile, typed_json.parse(path.read_bytes(), str(path)), str(path))
    except FileNotFoundError:
        return None
    if read.schema != _SCHEMA:
        raise MessageError(f"{path}: has schema {read.schema}, this edgeml reads {_SCHEMA}")
    for one in read.models:
        _check(one, f"{path}: {one.model!r:.60} {one.release}")
    return read.models


def write_drift(home: Path, models: tuple[ModelDrift, ...]) -> None:
    """Replace the file; on the disk when this returns.

    Raises:
        OSError: the file is what it was.
    """
    values = {"schema": _SCHEMA} | typed_json.write(_DriftFile(models))
    path = home / DRIFT_FILE
    if path.is_fifo():  # nobody's output, as where a person names one
        path.unlink()
    with new_file(path) as file:
        file.write(json.dumps(values, separators=(",", ":")).encode() + b"\n")


def _check(one: ModelDrift, where: str) -> None:
    times = [] if one.at is None else [one.at]
    for name, state in one.sums.items():
        if len(state.sums) != len(DIRECTIONS) or len(state.since) != len(DIRECTIONS):
            raise MessageError(f"{where}: {name!r:.60}: must have {len(DIRECTIONS)} sums")
        if not all(map(math.isfinite, state.sums)):
            raise MessageError(f"{where}: {name!r:.60}: sums without bound")
        times += [since for since in state.since if not math.isnan(since)]
    if not all(0 <= time <= _LATEST for time in times):
        raise MessageError(f"{where}: a time that is none")
