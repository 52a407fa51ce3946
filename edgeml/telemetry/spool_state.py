"""``state.json`` of the spool: which segments belong to it, and how far they were sent.

It is the one place where a change of several segments becomes true: what it does not name is not there. A
line of JSON, and one with its CRC-32: with one bit changed, windows would be given up, or sent twice.
"""

from __future__ import annotations

import json
import secrets
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from edgeml import typed_json
from edgeml.atomic import replacing_file
from edgeml.errors import MessageError
from edgeml.telemetry.report import Lost

STATE_FILE: Final = "state.json"
NOTHING: Final = Lost()


@dataclass(frozen=True, slots=True)
class SegmentNote:
    """A segment that belongs to the spool."""

    number: int
    span_s: int = 0


@dataclass(frozen=True, slots=True)
class SpoolState:
    """As it is on the disk; frames from ``next_seq`` on were appended after it was written."""

    epoch: str
    next_seq: int = 0
    link: str = ""
    """Of the last window."""
    acked_through: int = -1
    sent_through: int = -1
    """Windows up to here may have reached the server: they are never merged."""
    positions: Mapping[str, Any] = field(default_factory=dict)
    """Of the rings, as of window ``next_seq - 1``."""
    lost: Lost = NOTHING
    """What window ``next_seq`` has to tell."""
    segments: tuple[SegmentNote, ...] = ()
    next_segment: int = 0
    acked_at: float | None = None
    """When the server last took something, by the wall clock."""
    total_lost: Lost = NOTHING
    """Since the spool was made, for people."""
    schema: int = 1


def new_epoch() -> str:
    """Give a stream's name that nobody has."""
    return secrets.token_hex(16)


def read_state(folder: Path) -> SpoolState | None:
    """Read the state; ``None``: there is none that can be read."""
    path = folder / STATE_FILE
    try:
        text, _, checksum = path.read_bytes().rstrip().rpartition(b"\n")
        if checksum != _checksum(text):
            return None
        return typed_json.read(SpoolState, typed_json.parse(text, str(path)), str(path))
    except (FileNotFoundError, MessageError):
        return None


def write_state(folder: Path, state: SpoolState) -> None:
    """Replace the state; on the disk when this returns.

    Raises:
        OSError: the state is what it was.
    """
    with replacing_file(folder / STATE_FILE) as scratch:
        text = json.dumps(typed_json.write(state), separators=(",", ":")).encode()
        scratch.write_bytes(text + b"\n" + _checksum(text) + b"\n")


def _checksum(text: bytes) -> bytes:
    return b"%08x" % zlib.crc32(text)
