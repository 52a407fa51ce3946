"""Compares what edgeml chooses with each stock quantizer's result, for one model on one runtime."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np

from edgeml import plugins
from edgeml.arrays import Array
from tests.benchmarks.stock_models import MODELS, Data, Model
from tests.benchmarks.stock_quantizers import QUANTIZERS, SUFFIXES
from tests.conftest import DATA, REPOSITORY
from tests.integration.quantize_models import sqnr

RUNTIMES: Final = tuple(QUANTIZERS)
MAX_DROP: Final = 0.5
"""Points of accuracy that edgeml's choice, and the best stock result, may lose."""
TOOL_TIMEOUT_S: Final = 300.0
JOB_TIMEOUT_S: Final = 900.0
PROCESSES, ROUNDS = 3, 10
"""Fresh processes that time all artifacts, and the rounds of each."""
FLOAT, OURS, AGAIN = "float32", "edgeml", "edgeml, again"
"""``AGAIN`` is the same file in a second session: how far apart two equal files are told."""


@dataclass(frozen=True)
class Artifact:
    """A file, and the engine options that it is loaded with."""

    path: Path
    options: Mapping[str, str] = field(default_factory=dict)


class ToolError(Exception):
    """A process did not do what it was for."""


@dataclass(frozen=True)
class Entry:
    """One artifact."""

    label: str
    accuracy: float | None = None
    """Percent."""
    sqnr_db: float | None = None
    latency_us: float | None = None
    ratio: float | None = None
    """Its latency divided by that of edgeml's choice, the median over rounds."""
    size_bytes: int | None = None
    seconds: float | None = None
    """That it took to make."""
    error: str = ""


@dataclass(frozen=True)
class Comparison:
    """All artifacts of one model for one runtime."""

    model: str
    runtime: str
    chosen: str
    why: str
    entries: tuple[Entry, ...] = field(default=())

    def entry(self, label: str) -> Entry:
        """Give the entry of this label."""
        return next(one for one in self.entries if one.label == label)

    @property
    def stock(self) -> tuple[Entry, ...]:
        """The entries of stock tools that gave something."""
        return tuple(one for one in self.entries if one.label in QUANTIZERS[self.runtime] and not one.error)

    def drop(self, entry: Entry) -> float:
        """Points of accuracy that an entry loses against float in this runtime."""
        base = self.entry(FLOAT).accuracy
        assert base is not None
        assert entry.accuracy is not None
        return round(base - entry.accuracy, 6)

    @property
    def best_stock(self) -> Entry | None:
        """The fastest stock result that holds the gate."""
        held = [one for one in self.stock if self.drop(one) <= MAX_DROP]
        return min(held, key=lambda one: one.ratio or 0.0, default=None)


def compare(name: str, runtime: str, folder: Path) -> Comparison:
    """Make, judge and time everything; what was done before, by the JSON file in the folder, is read."""
    kept = folder / f"{name}.{runtime}.json"
    if kept.exists():
        return _read(json.loads(kept.read_text()))
    room = folder / name / runtime
    room.mkdir(parents=True, exist_ok=True)
    data = _data(name, folder / name)
    model = MODELS[name]
    source = DATA / model.files[runtime]
    options = {"runtimes": [runtime], "calibration": str(data / "calibration.npy"), "name": name}
    base = _edgeml(source, room / "float", schemes=["float32"], measure=False, **options)
    floats = Artifact(Path(base["artifact"]))
    labels = _labels(model, data, runtime, floats)
    evaluation = {
        "evaluation": f"{data / 'evaluation.npz'}:x,y",
        "max_drop": MAX_DROP,
        "metric": model.metric,
    }
    ours = _edgeml(source, room / "ours", schemes="auto", **options, **evaluation)
    artifacts = {FLOAT: floats, OURS: Artifact(Path(ours["artifact"]), ours["options"])}
    seconds = {OURS: ours["seconds"]}
    errors: dict[str, str] = {}
    given = _run("outputs", runtime, floats, data, room / "float.npy")["input"]
    for label in QUANTIZERS[runtime]:
        target = room / f"{''.join(part for part in label if part.isalnum())}{SUFFIXES[runtime]}"
        started = time.monotonic()
        try:
            _tool(label, floats.path, given, data / "calibration.npy", target)
            artifacts[label] = Artifact(target)
        except ToolError as error:
            errors[label] = str(error)
        seconds[label] = time.monotonic() - started
    judged: dict[str, Array] = {}
    for label, artifact in tuple(artifacts.items()):
        try:
            _run("outputs", runtime, artifact, data, room / "outputs.npy")
            judged[label] = np.load(room / "outputs.npy")
        except ToolError as error:
            errors[label] = str(error)
            del artifacts[label]
    times = _times(runtime, {**artifacts, AGAIN: artifacts[OURS]}, data)
    entries = tuple(
        Entry(
            label,
            model.accuracy(judged[base_label], labels),
            None if label == FLOAT else min(99.0, sqnr(judged[FLOAT], judged[base_label])),
            median(times[label]),
            median(np.divide(times[label], times[OURS]).tolist()),
            _size(artifacts[base_label].path),
            seconds.get(label),
        )
        for label, base_label in [*((one, one) for one in artifacts), (AGAIN, OURS)]
    )
    failed = tuple(Entry(label, seconds=seconds[label], error=why) for label, why in errors.items())
    chosen = " ".join([ours["chosen"], *map("=".join, _unusual(runtime, ours["options"]).items())])
    found = Comparison(name, runtime, chosen, ours["why"], (*entries, *failed))
    kept.write_text(json.dumps(asdict(found), indent=1))
    return found


def _unusual(runtime: str, options: Mapping[str, str]) -> dict[str, str]:
    """Give the engine options that are not the driver's defaults."""
    driver = plugins.runtime(runtime)
    usual = driver.options({})
    return {key: value for key, value in options.items() if driver.options({key: value}) != usual}


def _read(values: dict[str, Any]) -> Comparison:
    return Comparison(**values | {"entries": tuple(Entry(**one) for one in values["entries"])})


def _data(name: str, folder: Path) -> Path:
    """Write a model's data as files once: calibration, inputs, and labels if there are any."""
    if not (folder / "inputs.npy").exists():
        folder.mkdir(parents=True, exist_ok=True)
        data: Data = MODELS[name].data(DATA)
        np.save(folder / "calibration.npy", np.stack(data.calibration).astype(np.float32))
        if data.labels is not None:
            np.save(folder / "labels.npy", data.labels.astype(np.int64))
        np.save(folder / "inputs.npy", np.stack(data.evaluation).astype(np.float32))
    return folder


def _labels(model: Model, data: Path, runtime: str, floats: Artifact) -> Array:
    """Give the labels, or float's answers in the place of them, and write inputs and labels for edgeml."""
    if not (data / "labels.npy").exists():
        _run("outputs", runtime, floats, data, data / "reference.npy")
        np.save(data / "labels.npy", model.reference(np.load(data / "reference.npy")))
    labels: Array = np.load(data / "labels.npy")
    if not (data / "evaluation.npz").exists():
        np.savez(data / "evaluation.npz", x=np.load(data / "inputs.npy"), y=labels)
    return labels


def _edgeml(source: Path, output: Path, **options: Any) -> dict[str, Any]:
    return _job("convert", {"source": str(source), "output": str(output), **options})


def _run(job: str, runtime: str, artifact: Artifact, data: Path, target: Path) -> dict[str, Any]:
    files = {"artifact": str(artifact.path), "inputs": str(data / "inputs.npy"), "target": str(target)}
    return _job(job, {"runtime": runtime, "options": artifact.options, **files})


def _times(runtime: str, artifacts: Mapping[str, Artifact], data: Path) -> dict[str, list[float]]:
    """Give microseconds of every round of every process, by artifact."""
    found: dict[str, list[float]] = {label: [] for label in artifacts}
    labels = list(artifacts)
    for place in range(PROCESSES):
        order = [*labels[place:], *labels[:place]]
        given = {label: (str(artifacts[label].path), artifacts[label].options) for label in order}
        inputs = str(data / "inputs.npy")
        one = _job("latency", {"runtime": runtime, "artifacts": given, "inputs": inputs, "rounds": ROUNDS})
        for label, times in one.items():
            found[label] += times
    return found


def _job(job: str, given: Mapping[str, Any]) -> Any:
    words = ("tests.benchmarks.stock_process", job, json.dumps(given))
    return json.loads(_python(JOB_TIMEOUT_S, *words).splitlines()[-1])


def _tool(label: str, source: Path, name: str, calibration: Path, target: Path) -> None:
    words = (label, str(source), name, str(calibration), str(target))
    _python(TOOL_TIMEOUT_S, "tests.benchmarks.stock_quantizers", *words)


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
        raise ToolError(lines[-1][:200])
    return done.stdout


def _size(artifact: Path) -> int:
    weights = artifact.with_suffix(".bin")
    return artifact.stat().st_size + (weights.stat().st_size if artifact.suffix == ".xml" else 0)
