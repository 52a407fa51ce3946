"""Isolated frameworks: each worker is an environment with pinned packages and one script that does one job."""

from __future__ import annotations

from edgeml_converters.workers.catalogue import WORKERS, WorkerStatus, interpreter, status

__all__ = ["WORKERS", "WorkerStatus", "interpreter", "status"]
