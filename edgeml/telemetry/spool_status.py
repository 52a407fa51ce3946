"""What a spool holds, for people: its files are read, nothing is changed, whoever owns them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgeml.errors import MessageError
from edgeml.telemetry.report import Lost
from edgeml.telemetry.segments import body_at, note_of, scan, segment_path
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
    """
    state = read_state(folder)
    if state is None:
        return None
    acked, acked_at, last, size_bytes = state.acked_through, state.acked_at, state.next_seq - 1, 0
    seqs: list[int] = []
    for one in state.segments:
        try:
            content = segment_path(folder, one.number).read_bytes()
        except FileNotFoundError:
            continue
        size_bytes += len(content)
        frames = scan(content).frames
        seqs += [frame.seq for frame in frames]
        if frames and frames[-1].seq > last:
            last = frames[-1].seq
            try:
                note = note_of(body_at(content, frames[-1]) or b"")
            except MessageError:
                continue
            acked, acked_at = max(acked, note.acked_through), note.acked_at or acked_at
    waiting = [seq for seq in seqs if seq > acked]
    before = max((seq for seq in seqs if seq <= acked), default=acked)
    begins = before if not waiting or before >= 0 else min(waiting[0], 0) - 1
    windows = waiting[-1] - begins if waiting else 0
    return SpoolStatus(state.epoch, len(waiting), windows, size_bytes, last, acked_at, state.total_lost)
