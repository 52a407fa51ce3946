"""What models do, recorded at next to no cost: standard library only.

A process writes each inference to a ring in shared memory. One process of a device, the agent where there is
one, reads the rings, bins what it finds into a :class:`~edgeml.telemetry.report.Report` a minute, keeps it in
a spool, and sends it.
"""

from __future__ import annotations

from edgeml.telemetry.recording import Recorder, recorder

__all__ = ["Recorder", "recorder"]
