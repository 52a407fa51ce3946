"""Makes edgeml's choice and each stock quantizer's artifact for one model on one runtime, and judges them.

Each is kept as a JSON file in the folder, so that what was interrupted goes on.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from edgeml.arrays import Array
from tests.benchmarks.stock_models import MODELS, Data, Model
from tests.benchmarks.stock_quantizers import QUANTIZERS, SUFFIXES
from tests.conftest import DATA, REPOSITORY
from tests.integration.quantize_models import sqnr

MAX_DROP: Final = 0.5
"""Points of accuracy that edgeml's choice, and the best stock result, may lose."""
TOOL_TIMEOUT_S: Final = 300.0
JOB_TIMEOUT_S: Final = 900.0
FLOAT, OURS = "float32", "edgeml"
SQNR_OF_EQUAL_DB: Final = 99.0


class ToolError(Exception):
    """A process did not do what it was for."""


@dataclass(frozen=True)
class Artifact:
    """A file that was made and judged, or why there is none."""

    path: str = ""
    options: Mapping[str, str] = field(default_factory=dict)
    """Engine options that it is loaded with."""
    seconds: float | None = None
    """That it took to make."""
    accuracy: float | None = None
    """Percent."""
    sqnr_db: float | None = None
    size_bytes: int | None = None
    error: str = ""
    chosen: str = ""
    """edgeml's name of it."""


@dataclass(frozen=True)
class Making:
    """One model on one runtime."""

    name: str
    runtime: str
    folder: Path

    @property
    def room(self) -> Path:
        """Where its files stand."""
        return self.folder / self.name / self.runtime

    @property
    def data(self) -> Path:
        """Where the model's data stand, once they were made."""
        return self.folder / self.name

    @property
    def model(self) -> Model:
        """What is said of the model."""
        return MODELS[self.name]

    def made(self) -> dict[str, Artifact]:
        """Give every artifact by its label: float, edgeml's, and each stock tool's."""
        self.room.mkdir(parents=True, exist_ok=True)
        _write_data(self.model, self.data)
        floats = self._kept(FLOAT, self._float)
        given = {"floats": Path(floats.path)}
        found = {FLOAT: floats, OURS: self._kept(OURS, self._edgeml)}
        for label in QUANTIZERS[self.runtime]:
            found[label] = self._kept(label, lambda label=label: self._stock(label, **given))
        return found

    def _kept(self, label: str, make: Any) -> Artifact:
        kept = self.room / f"{_slug(label)}.json"
        if kept.exists():
            return Artifact(**json.loads(kept.read_text()))
        try:
            found: Artifact = make()
        except ToolError as error:
            if label in {FLOAT, OURS}:
                raise
            found = Artifact(error=str(error))
        kept.write_text(json.dumps(asdict(found)))
        return found

    def _float(self) -> Artifact:
        made = self._converted(FLOAT, schemes=["float32"], measure=False)
        outputs = self._outputs(FLOAT, made["artifact"], {})
        _write_labels(self.model, self.data, outputs)
        return self._judged(FLOAT, Artifact(made["artifact"]))

    def _edgeml(self) -> Artifact:
        evaluation = f"{self.data / 'evaluation.npz'}:x,y"
        gate = {"evaluation": evaluation, "max_drop": MAX_DROP, "metric": self.model.metric}
        made = self._converted(OURS, schemes="auto", **gate)
        found = Artifact(made["artifact"], made["options"], made["seconds"], chosen=made["chosen"])
        return self._judged(OURS, found)

    def _stock(self, label: str, floats: Path) -> Artifact:
        target = self.room / f"{_slug(label)}{SUFFIXES[self.runtime]}"
        calibration = str(self.data / "calibration.npy")
        name = json.loads((self.room / "input.json").read_text())
        words = (label, str(floats), name, calibration, str(target))
        started = time.monotonic()
        _python(TOOL_TIMEOUT_S, "tests.benchmarks.stock_quantizers", *words)
        return self._judged(label, Artifact(str(target), seconds=time.monotonic() - started))

    def _converted(self, label: str, **options: Any) -> dict[str, Any]:
        source, output = DATA / self.model.files[self.runtime], self.room / _slug(label)
        calibration = str(self.data / "calibration.npy")
        given = {"source": str(source), "output": str(output), "runtimes": [self.runtime], **options}
        done: dict[str, Any] = job("convert", {**given, "calibration": calibration, "name": self.name})
        return done

    def _outputs(self, label: str, path: str, options: Mapping[str, str]) -> Array:
        target = self.room / f"{_slug(label)}.npy"
        files = {"artifact": path, "inputs": str(self.data / "inputs.npy"), "target": str(target)}
        done = job("outputs", {"runtime": self.runtime, "options": options, **files})
        if label == FLOAT:
            (self.room / "input.json").write_text(json.dumps(done["input"]))
        found: Array = np.load(target)
        return found

    def _judged(self, label: str, one: Artifact) -> Artifact:
        outputs = self._outputs(label, one.path, one.options)
        labels, reference = np.load(self.data / "labels.npy"), np.load(self.room / f"{FLOAT}.npy")
        said = {
            "accuracy": self.model.accuracy(outputs, labels),
            "sqnr_db": None if label == FLOAT else min(SQNR_OF_EQUAL_DB, sqnr(reference, outputs)),
            "size_bytes": _size(Path(one.path)),
        }
        return Artifact(**{**asdict(one), **said})


def _write_data(model: Model, folder: Path) -> None:
    """Write a model's data as files once: calibration, inputs, and labels if there are any."""
    if (folder / "inputs.npy").exists():
        return
    data: Data = model.data(DATA)
    np.save(folder / "calibration.npy", np.stack(data.calibration).astype(np.float32))
    if data.labels is not None:
        np.save(folder / "labels.npy", data.labels.astype(np.int64))
    np.save(folder / "inputs.npy", np.stack(data.evaluation).astype(np.float32))


def _write_labels(model: Model, data: Path, outputs: Array) -> None:
    """Take float's answers in the place of labels, and write inputs and labels for edgeml."""
    if not (data / "labels.npy").exists():
        np.save(data / "labels.npy", model.reference(outputs))
    if not (data / "evaluation.npz").exists():
        np.savez(data / "evaluation.npz", x=np.load(data / "inputs.npy"), y=np.load(data / "labels.npy"))


def job(name: str, given: Mapping[str, Any]) -> Any:
    """Do something in a process of its own; give what it found.

    Raises:
        ToolError: it failed or hung; says its last line.
    """
    words = ("tests.benchmarks.stock_process", name, json.dumps(given))
    return json.loads(_python(JOB_TIMEOUT_S, *words).splitlines()[-1])


def _python(timeout_s: float, *words: str) -> str:
    argv = [sys.executable, "-m", *words]
    try:
        done = subprocess.run(
            argv, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=timeout_s
        )
    except subprocess.TimeoutExpired as error:
        raise ToolError(f"not done in {timeout_s:g} s") from error
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise ToolError(lines[-1][:300])
    return done.stdout


def _slug(label: str) -> str:
    return "".join(part for part in label if part.isalnum())


def _size(artifact: Path) -> int:
    weights = artifact.with_suffix(".bin")
    return artifact.stat().st_size + (weights.stat().st_size if artifact.suffix == ".xml" else 0)
