"""Isolated frameworks: a worker is an environment with pins and a script that does one job."""

from __future__ import annotations

from edgeml_converters.workers.catalogue import WORKERS, WorkerStatus, interpreter, status
from edgeml_converters.workers.install import install, remove, size_bytes
from edgeml_converters.workers.run import run_job

__all__ = [
    "WORKERS",
    "WorkerStatus",
    "install",
    "interpreter",
    "remove",
    "run_job",
    "size_bytes",
    "status",
]
