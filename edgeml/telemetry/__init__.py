"""What models do, recorded at next to no cost: standard library only.

A process writes each inference to a ring in shared memory. One process of a device, the agent where there is
one, reads the rings, bins what it finds into a :class:`~edgeml.telemetry.report.Report` a minute, keeps it in
a spool, and sends it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgeml.telemetry.recording import Recorder, recorder

if TYPE_CHECKING:
    from edgeml.telemetry.alone import start

__all__ = ["Recorder", "recorder", "start"]


def __getattr__(name: str) -> Any:
    if name == "start":  # HTTP and TLS are of no use to a process that only records
        from edgeml.telemetry.alone import start

        return start
    raise AttributeError(f"module 'edgeml.telemetry' has no attribute {name!r}")
