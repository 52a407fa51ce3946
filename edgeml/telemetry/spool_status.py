"""What a spool holds, for people: its files are read, nothing is changed, whoever owns them."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from edgeml.telemetry.report import Lost
from edgeml.telemetry.segments import body_at, note_of, report_of, scan, segment_path
from edgeml.telemetry.spool_state import read_state


@dataclass(frozen=True, slots=True)
class SpoolStatus:
    """A spool as its files say, a window late at most."""

    epoch: str
    reports: int
    """That wait for the server …"""
    windows: int
    """… and the windows of a minute that they were made of."""
    size_bytes: int
    last_seq: int
    acked_at: float | None
    """When the server last took something, by the wall clock."""
    lost: Lost
    """Since the folder was made."""


def spool_status(folder: Path) -> SpoolStatus | None:
    """Read a spool's files; ``None``: there is none.

    Raises:
        OSError: they cannot be read.
        MessageError: a frame cannot be, though its checksum holds.
    """
    state = read_state(folder)
    if state is None:
        return None
    acked, acked_at, last = state.acked_through, state.acked_at, state.next_seq - 1
    bodies: list[tuple[int, bytes]] = []
    size_bytes = 0
    for one in state.segments:
        with suppress(FileNotFoundError):
            content = segment_path(folder, one.number).read_bytes()
            size_bytes += len(content)
            bodies += [(frame.seq, body_at(content, frame) or b"") for frame in scan(content).frames]
    if bodies and bodies[-1][0] > last:
        last, note = bodies[-1][0], note_of(bodies[-1][1])
        acked, acked_at = max(acked, note.acked_through), note.acked_at or acked_at
    waiting = [(seq, body) for seq, body in bodies if seq > acked]
    windows = last - report_of(waiting[0][1]).begins + 1 if waiting else 0
    return SpoolStatus(state.epoch, len(waiting), windows, size_bytes, last, acked_at, state.total_lost)
