"""What of a spool's files can be read after whatever happened to them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from edgeml.errors import MessageError
from edgeml.telemetry.report import Lost
from edgeml.telemetry.segments import Frame, Scan, Segment, body_at, note_of, report_of, scan, segment_path
from edgeml.telemetry.spool_state import SpoolState, new_epoch


@dataclass(slots=True)
class Recovered:
    """The segments that a state names."""

    segments: list[Segment] = field(default_factory=list)
    damaged: dict[int, int] = field(default_factory=dict)
    """Place in ``segments`` to how many windows cannot be read there."""
    is_end_damaged: bool = False
    """Windows after the last that can be read were there once."""


class _Read(NamedTuple):
    segment: Segment
    seen: Scan
    ends_damaged: bool


def recover(folder: Path, state: SpoolState) -> Recovered:
    """Read all segments; a frame that was never written to its end is cut off.

    Segments whose files were exchanged are put in order; of frames that are there twice the second goes.

    Raises:
        OSError: a file cannot be read, or not be cut.
    """
    found = Recovered()
    before, last = state.acked_through, -1
    pending: list[int] = []
    for place, (segment, seen, ends_damaged) in enumerate(_in_order(_read(folder, state))):
        for at, frame in enumerate(seen.frames):
            if at in seen.damaged or frame.seq <= last:
                pending.append(place)
            if frame.seq <= last:
                continue
            if pending:
                begins = _begins(segment.path, frame)
                found.damaged[pending[0]] = found.damaged.get(pending[0], 0) + max(1, begins - before - 1)
                found.damaged |= {one: found.damaged.get(one, 0) for one in pending}
                pending = []
            before = last = frame.seq
            segment.frames.append(frame)
        if ends_damaged:
            pending.append(place)
        found.segments.append(segment)
    found.is_end_damaged = bool(pending)
    for place in dict.fromkeys(pending):  # one at least, and all that the state knew of
        known = state.next_seq - 1 - before if place == pending[0] else 0
        found.damaged[place] = found.damaged.get(place, 0) + max(1, known)
    return found


def _read(folder: Path, state: SpoolState) -> list[_Read]:
    found = []
    for place, note in enumerate(state.segments):
        path = segment_path(folder, note.number)
        content = _content(path)
        seen = scan(content or b"")
        is_torn = place == len(state.segments) - 1 and seen.is_torn
        if is_torn:
            _cut(path, seen.end)
        ends_damaged = content is None or (seen.end < len(content) and not is_torn)
        segment = Segment(path, note.number, note.span_s, size_bytes=seen.end)
        found.append(_Read(segment, seen, ends_damaged))
    return found


def _in_order(several: list[_Read]) -> list[_Read]:
    begins, places = -1, []
    for place, one in enumerate(several):
        begins = one.seen.frames[0].seq if one.seen.frames else begins
        places.append((begins, place))
    return [several[place] for _, place in sorted(places)]


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


def _begins(path: Path, frame: Frame) -> int:
    try:
        return report_of(body_at(path.read_bytes(), frame) or b"").begins
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
