"""What of a spool's files can be read after whatever happened to them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgeml.errors import MessageError
from edgeml.telemetry.report import Lost
from edgeml.telemetry.segments import Scan, Segment, body_at, note_of, report_of, scan, segment_path
from edgeml.telemetry.spool_state import SpoolState, new_epoch


@dataclass(slots=True)
class Recovered:
    """The segments that a state names."""

    segments: list[Segment] = field(default_factory=list)
    damaged: dict[int, int] = field(default_factory=dict)
    """Place in ``segments`` to how many windows cannot be read there."""
    is_end_damaged: bool = False
    """Windows after the last that can be read were there once."""


def recover(folder: Path, state: SpoolState) -> Recovered:
    """Read all segments; a frame that was never written to its end is cut off.

    Raises:
        OSError: a file cannot be read, or not be cut.
    """
    found = Recovered()
    before = state.acked_through
    pending: list[int] = []
    for place, note in enumerate(state.segments):
        segment = Segment(segment_path(folder, note.number), note.number, note.span_s)
        content = _content(segment.path)
        seen = scan(content or b"")
        is_last = place == len(state.segments) - 1
        for at, frame in enumerate(seen.frames):
            pending += [place] if at in seen.damaged else []
            if pending:
                begins = _begins(content or b"", seen, at)
                found.damaged[pending[0]] = found.damaged.get(pending[0], 0) + max(1, begins - before - 1)
                found.damaged |= {one: found.damaged.get(one, 0) for one in pending}
                pending = []
            before = frame.seq
        torn = is_last and seen.is_torn
        if content is None or (seen.end < len(content) and not torn):
            pending.append(place)
        segment.frames, segment.size_bytes = seen.frames, seen.end
        found.segments.append(segment)
        if torn:
            _cut(segment.path, seen.end)
    found.is_end_damaged = bool(pending)
    for place in pending:  # one at least
        found.damaged[place] = found.damaged.get(place, 0) + 1
    return found


def start_anew(folder: Path) -> SpoolState:
    """Give the first state of a folder; windows whose state was lost are counted, and not sent.

    Nobody knows which of them the server has, and none may be counted twice.
    """
    positions: Mapping[str, Any] = {}
    windows, numbers = 0, [-1]
    for path in sorted(folder.glob("*.seg")):
        content = path.read_bytes()
        for frame in scan(content).frames:
            body = body_at(content, frame)
            if body is not None:
                windows += _windows(body)
                positions = _positions(body) or positions
        numbers.append(int(path.stem) if path.stem.isdecimal() else -1)
    lost = Lost(damaged=windows)
    return SpoolState(
        new_epoch(), positions=positions, lost=lost, total_lost=lost, next_segment=max(numbers) + 1
    )


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _begins(content: bytes, seen: Scan, at: int) -> int:
    frame = seen.frames[at]
    try:
        return report_of(body_at(content, frame) or b"").begins
    except MessageError:
        return frame.seq


def _windows(body: bytes) -> int:
    try:
        return report_of(body).windows
    except MessageError:
        return 1


def _positions(body: bytes) -> Mapping[str, Any]:
    try:
        return note_of(body).positions
    except MessageError:
        return {}


def _cut(path: Path, size_bytes: int) -> None:
    handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.ftruncate(handle, size_bytes)
        os.fsync(handle)
    finally:
        os.close(handle)
