"""Segments of the spool: files of frames, each ``length | crc32 | seq | body``, only ever appended to.

All numbers are little-endian; the checksum is over all of the frame but itself. A body is two lines of JSON,
compressed: a report, and a note of what was true when it was appended.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

from edgeml.errors import MessageError
from edgeml.telemetry.encoding import report_from_json, report_to_json
from edgeml.telemetry.merging import without_inputs, without_samples
from edgeml.telemetry.report import MOST_BYTES, Report

SEGMENT_BYTES: Final = 256 * 1024
_HEADER: Final = struct.Struct("<IIQ")
_LENGTH_AND_SEQ: Final = struct.Struct("<IQ")
_SHORTEST: Final = 8
"""Bytes of a body: zlib needs as many for nothing at all."""
_LONGEST: Final = 4 * 1024 * 1024
_MOST_TEXT_BYTES: Final = MOST_BYTES - 1024
_LEVEL: Final = 6


class Frame(NamedTuple):
    """Where a window lies in its segment."""

    seq: int
    offset: int
    size_bytes: int
    """With its header."""


@dataclass(frozen=True, slots=True)
class Note:
    """What stands beside a window, so that it needs no write of its own."""

    positions: Mapping[str, Any] = field(default_factory=dict)
    """In the rings, that the window was read up to."""
    acked_through: int = -1
    """What the server was known to have …"""
    acked_at: float | None = None
    """… since when, by the wall clock."""


@dataclass(slots=True)
class Segment:
    """One file."""

    path: Path
    number: int
    span_s: int = 0
    """How long its windows were made by merging; 0: they were not merged."""
    frames: list[Frame] = field(default_factory=list)
    size_bytes: int = 0


class Scan(NamedTuple):
    """What is found in a segment's bytes."""

    frames: list[Frame]
    damaged: list[int]
    """Places in ``frames`` that have something unreadable before them."""
    end: int
    """Where the last frame ends; what follows is torn, or damaged."""
    is_torn: bool = False
    """A frame at the end was never written to its end."""


def frame_bytes(seq: int, body: bytes) -> bytes:
    """Give a frame as it is written."""
    checksum = zlib.crc32(body, zlib.crc32(_LENGTH_AND_SEQ.pack(len(body), seq)))
    return _HEADER.pack(len(body), checksum, seq) + body


def pack(report: Report, note: Note) -> bytes:
    """Give the body of a frame; of a report that no batch could hold raw inputs go, then samples."""
    text = report_to_json(report)
    for lighter in (without_inputs, without_samples):
        if len(text) > _MOST_TEXT_BYTES:
            text = report_to_json(lighter(report))
    kept = json.dumps(asdict(note), separators=(",", ":")).encode()
    return zlib.compress(b"\n".join((text, kept)), _LEVEL)


def text_of(body: bytes) -> bytes:
    """Give the report in a body as JSON.

    Raises:
        MessageError: it is not a body.
    """
    return _unpack(body)[0]


def report_of(body: bytes) -> Report:
    """Give the report in a body.

    Raises:
        MessageError: it is not a body.
    """
    return report_from_json(_unpack(body)[0])


def note_of(body: bytes) -> Note:
    """Give the note in a body.

    Raises:
        MessageError: it is not a body.
    """
    try:
        found = json.loads(_unpack(body)[1])
        return Note(dict(found["positions"]), int(found["acked_through"]), found.get("acked_at"))
    except (LookupError, TypeError, ValueError) as error:
        raise MessageError(f"a frame of the spool: {error}") from error


def _unpack(body: bytes) -> tuple[bytes, bytes]:
    try:
        inflated = zlib.decompressobj().decompress(body, _LONGEST)
    except zlib.error as error:
        raise MessageError(f"a frame of the spool: {error}") from error
    report, _, note = inflated.partition(b"\n")
    return report, note


def body_at(content: bytes, frame: Frame) -> bytes | None:
    """Give the body of a frame; ``None`` if it is damaged."""
    found = _frame_at(content, frame.offset)
    if found != frame:
        return None
    return content[frame.offset + _HEADER.size : frame.offset + frame.size_bytes]


def scan(content: bytes) -> Scan:
    """Find the frames in a segment, whatever happened to it."""
    frames: list[Frame] = []
    damaged: list[int] = []
    place = 0
    while place < len(content):
        frame = _frame_at(content, place)
        if frame is None:
            following = _next_frame(content, place + 1)
            if following is None:
                return Scan(frames, damaged, place, _is_torn(content, place))
            damaged.append(len(frames))
            frame = following
        frames.append(frame)
        place = frame.offset + frame.size_bytes
    return Scan(frames, damaged, place)


def _frame_at(content: bytes, place: int) -> Frame | None:
    if place + _HEADER.size + _SHORTEST > len(content):
        return None
    length, checksum, seq = _HEADER.unpack_from(content, place)
    end = place + _HEADER.size + length
    if not _SHORTEST <= length <= _LONGEST or end > len(content):
        return None
    body = content[place + _HEADER.size : end]
    if zlib.crc32(body, zlib.crc32(_LENGTH_AND_SEQ.pack(length, seq))) != checksum:
        return None
    return Frame(seq, place, end - place)


def _next_frame(content: bytes, place: int) -> Frame | None:
    for start in range(place, len(content) - _HEADER.size - _SHORTEST + 1):
        frame = _frame_at(content, start)
        if frame is not None:
            return frame
    return None


def _is_torn(content: bytes, place: int) -> bool:
    """Say whether what is left is the beginning of one frame; else it was whole once, or several."""
    if place + _HEADER.size > len(content):
        return True
    length = _HEADER.unpack_from(content, place)[0]
    if not _SHORTEST <= length <= _LONGEST or place + _HEADER.size + length <= len(content):
        return False
    inflating = zlib.decompressobj()
    try:
        inflating.decompress(content[place + _HEADER.size :], _LONGEST)
    except zlib.error:
        return False
    return not inflating.eof  # a body that is whole: it is the length that is wrong


# --- files


def open_for_append(path: Path, *, new: bool) -> int:
    """Open a segment's file.

    Raises:
        OSError: as of ``open``; a new one is there already.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | (os.O_CREAT | os.O_EXCL if new else 0)
    return os.open(path, flags, 0o644)


def append(handle: int, content: bytes, size_bytes: int) -> None:
    """Write at the end of a file of ``size_bytes``, or leave it as it was.

    Raises:
        OSError: nothing was written.
    """
    try:
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(handle, rest) :]
    except BaseException:
        os.ftruncate(handle, size_bytes)
        raise


def write_segments(
    folder: Path, number: int, frames: Iterable[tuple[int, bytes]], span_s: int, most_bytes: int
) -> list[Segment]:
    """Write frames into new segments, numbered from ``number``; on the disk when this returns.

    Raises:
        OSError: the files written so far are removed.
    """
    made: list[Segment] = []
    handle = -1
    try:
        for seq, body in frames:
            content = frame_bytes(seq, body)
            if handle < 0 or made[-1].size_bytes + len(content) > most_bytes:
                written, handle = handle, -1
                _finish(written)
                path = segment_path(folder, number + len(made))
                handle = open_for_append(path, new=True)
                made.append(Segment(path, number + len(made), span_s))
            append(handle, content, made[-1].size_bytes)
            made[-1].frames.append(Frame(seq, made[-1].size_bytes, len(content)))
            made[-1].size_bytes += len(content)
        written, handle = handle, -1
        _finish(written)
    except BaseException:
        if handle >= 0:
            os.close(handle)
        for one in made:
            one.path.unlink(missing_ok=True)
        raise
    return made


def _finish(handle: int) -> None:
    if handle >= 0:
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def segment_path(folder: Path, number: int) -> Path:
    """Give where a segment lies."""
    return folder / f"{number:08d}.seg"
