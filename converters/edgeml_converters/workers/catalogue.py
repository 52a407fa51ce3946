"""Which workers there are, and which of them can be used here."""

from __future__ import annotations

import importlib.util
import os
import sys
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Final, Literal

from edgeml.errors import UsageError, WorkerMissingError
from edgeml.settings import origin, settings

State = Literal["installed", "importable", "configured", "outdated", "missing"]


@dataclass(frozen=True, slots=True)
class Worker:
    """One worker: what it is for, and what an interpreter must import to serve as it."""

    name: str
    purpose: str
    modules: tuple[str, ...]
    """All of them importable in the running interpreter: it serves as the worker."""
    options: tuple[str, ...] = ()
    """Options of pip that the pins need."""


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """Whether a worker can be used, and why or why not."""

    name: str
    state: State
    usable: bool
    reason: str
    python: Path | None = None


WORKERS: Final = {
    worker.name: worker
    for worker in (
        Worker(
            "tensorflow",
            "SavedModel and Keras to TFLite and ONNX, TFLite to ONNX",
            ("tensorflow", "tf_keras", "tf2onnx"),
        ),
        Worker("torch", "PyTorch .pt2 to ONNX, TFLite and OpenVINO", ("torch", "onnxscript", "litert_torch")),
        Worker("keras", "Keras to OpenVINO, without TensorFlow", ("keras", "openvino", "h5py")),
        Worker(
            "onnx2tf",
            "ONNX to TFLite, without TensorFlow",
            ("onnx2tf", "sng4onnx", "ai_edge_litert"),
            ("--no-deps", "--ignore-requires-python"),
        ),
    )
}


def worker_named(name: str) -> Worker:
    """Give a worker.

    Raises:
        UsageError: there is none of that name.
    """
    if name not in WORKERS:
        raise UsageError(f"no worker {name!r}; known: {', '.join(WORKERS)}")
    return WORKERS[name]


def workers_dir() -> Path:
    """Give the folder that holds the workers' environments (setting ``workers_dir``)."""
    return settings().workers_dir


def workers_dir_origin() -> str:
    """Say where the setting comes from: a worker installed under another setting is not seen."""
    return origin("workers_dir")


def folder(name: str) -> Path:
    """Give the folder of this package that holds a worker's script and pins."""
    return Path(__file__).parent / worker_named(name).name


def pins(name: str) -> str:
    """Give a worker's pinned requirements, comments and blank lines left out."""
    lines = (folder(name) / "requirements.txt").read_text(encoding="utf-8").splitlines()
    return "\n".join(line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#"))


def environment_python(environment: Path) -> Path:
    """Give the interpreter of a virtual environment."""
    if sys.platform == "win32":
        return environment / "Scripts" / "python.exe"
    return environment / "bin" / "python"


def status(name: str) -> WorkerStatus:
    """Say whether a worker can be used: configured by the user, installed, or importable right here.

    Raises:
        UsageError: there is no worker of that name.
    """
    worker = worker_named(name)
    configured = os.environ.get(f"EDGEML_WORKER_{name.upper()}")
    if configured:
        return _configured(name, Path(configured))
    environment = workers_dir() / name
    python = environment_python(environment)
    if python.exists():
        written = environment / "pins.txt"
        if not written.is_file() or written.read_text(encoding="utf-8") != pins(name):
            reason = f"installed with other versions than this edgeml pins; edgeml workers install {name}"
            return WorkerStatus(name, "outdated", usable=False, reason=reason, python=python)
        return WorkerStatus(name, "installed", usable=True, reason=str(environment), python=python)
    if _importable(worker.modules):
        reason = f"{', '.join(worker.modules)} can be imported in this interpreter"
        return WorkerStatus(name, "importable", usable=True, reason=reason, python=Path(sys.executable))
    reason = f"not installed in {workers_dir()}; workers_dir is {workers_dir_origin()}"
    return WorkerStatus(name, "missing", usable=False, reason=reason)


def interpreter(name: str) -> Path:
    """Give the interpreter that serves as a worker.

    Raises:
        WorkerMissingError: there is none; says how to install it.
    """
    found = status(name)
    if not found.usable or found.python is None:
        raise WorkerMissingError(f"worker {name}: {found.reason}. Install it: edgeml workers install {name}")
    return found.python


def _configured(name: str, python: Path) -> WorkerStatus:
    variable = f"EDGEML_WORKER_{name.upper()}"
    if not python.is_file() or not os.access(python, os.X_OK):
        reason = f"{variable} names {python}, which is not a program that can be run"
        return WorkerStatus(name, "configured", usable=False, reason=reason)
    return WorkerStatus(name, "configured", usable=True, reason=f"{variable}={python}", python=python)


@cache
def _importable(modules: tuple[str, ...]) -> bool:
    # asked of the metadata where there is any: find_spec also finds folders of the same name
    known = metadata.packages_distributions()
    return all(module in known and importlib.util.find_spec(module) is not None for module in modules)
