"""The spool's segments and state on the disk: whatever is killed, a change of them is made whole or not."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

from edgeml.telemetry import segments as frames_of
from edgeml.telemetry.merging import add_lost
from edgeml.telemetry.report import Lost, Report
from edgeml.telemetry.segments import Frame, Note, Segment
from edgeml.telemetry.spool_recovery import Recovered, recover, start_anew
from edgeml.telemetry.spool_state import (
    NOTHING,
    STATE_FILE,
    SegmentNote,
    SpoolState,
    read_state,
    write_state,
)

T = TypeVar("T")
Durability = Literal["window", "relaxed"]
LOG: Final = logging.getLogger("edgeml.telemetry")
_RELAXED: Final = 10
"""Windows that one sync is for."""


class DamagedError(Exception):
    """A frame that was read before cannot be read any more; never leaves the spool."""


class SpoolFiles:
    """What :class:`~edgeml.telemetry.spool.Spool` has on the disk; for its owner's one thread."""

    def __init__(self, folder: Path, segment_bytes: int, durability: Durability) -> None:
        self.folder, self._segment_bytes, self._durability = folder, segment_bytes, durability
        self.segments: list[Segment] = []
        self.state = read_state(folder) or self._begin()
        self.kept_ack = self.state.acked_through
        """What the disk knows of the server's acknowledgements."""
        self._handle = -1
        self._unsynced = 0
        self.recover()

    @property
    def size_bytes(self) -> int:
        """Of all segments."""
        return sum(one.size_bytes for one in self.segments)

    def close(self) -> None:
        """Write down what is known, as far as the disk takes it."""
        with suppress(OSError):
            self.sync()
            self.save(self.state)
        self._close_handle()

    # --- reading

    def frames(self) -> Iterator[tuple[Segment, Frame]]:
        """Give all frames, oldest first."""
        return ((segment, frame) for segment in self.segments for frame in segment.frames)

    def body(self, segment: Segment, frame: Frame) -> bytes:
        """Read one frame.

        Raises:
            DamagedError: it is not what was written.
        """
        with segment.path.open("rb") as file:
            file.seek(frame.offset)
            content = file.read(frame.size_bytes)
        body = frames_of.body_at(content, frame._replace(offset=0))
        if body is None:
            raise DamagedError(segment.path)
        return body

    def bodies(self, segments: Iterable[Segment]) -> Iterator[tuple[int, bytes]]:
        """Read all frames of segments: number and body.

        Raises:
            DamagedError: one is not what was written.
        """
        for segment in segments:
            content = segment.path.read_bytes() if segment.frames else b""
            for frame in segment.frames:
                body = frames_of.body_at(content, frame)
                if body is None:
                    raise DamagedError(segment.path)
                yield frame.seq, body

    # --- appending

    def append(self, report: Report, positions: Mapping[str, Any]) -> None:
        """Write a window behind all others, with what the state has to tell; it is on the disk then.

        Raises:
            OSError: nothing was written.
        """
        numbered = replace(report, lost=add_lost((report.lost, self.state.lost)))
        note = Note(positions, self.state.acked_through, self.state.acked_at)
        content = frames_of.frame_bytes(numbered.seq, frames_of.pack(numbered, note))
        segment = self._segment_with_room(len(content))
        frames_of.append(self._handle, content, segment.size_bytes)
        try:
            self._unsynced += 1
            if self._durability == "window" or self._unsynced >= _RELAXED:
                self.sync()
        except OSError:
            os.ftruncate(self._handle, segment.size_bytes)
            raise
        segment.frames.append(Frame(numbered.seq, segment.size_bytes, len(content)))
        segment.size_bytes += len(content)
        self.kept_ack = note.acked_through
        self.state = replace(
            self.state,
            next_seq=numbered.seq + 1,
            link=numbered.link,
            positions=dict(positions),
            lost=NOTHING,
        )

    def _segment_with_room(self, size_bytes: int) -> Segment:
        last = self.segments[-1] if self.segments else None
        is_full = last is not None and 0 < last.size_bytes > self._segment_bytes - size_bytes
        if last is None or last.span_s or is_full:
            self.sync()
            self._close_handle()
            return self._new_segment()
        if self._handle < 0:
            self._handle = frames_of.open_for_append(last.path, new=False)
        return last

    def _new_segment(self) -> Segment:
        number = self.state.next_segment
        segment = Segment(frames_of.segment_path(self.folder, number), number)
        segment.path.unlink(missing_ok=True)
        handle = frames_of.open_for_append(segment.path, new=True)
        try:
            self.replace(len(self.segments), len(self.segments), [segment], self.state)
        except BaseException:
            os.close(handle)
            raise
        self._handle = handle
        return segment

    # --- changing

    def rewrite(
        self,
        first: int,
        end: int,
        frames: Iterable[tuple[int, bytes]],
        span_s: int,
        lost: Lost = NOTHING,
        untold: Lost = NOTHING,
    ) -> int:
        """Put frames in the place of segments; give how many files they make.

        Raises:
            OSError: nothing was changed.
            DamagedError: likewise.
        """
        made = self.write(frames, span_s)
        self.replace(first, end, made, self.lose(lost, untold))
        return len(made)

    def write(self, frames: Iterable[tuple[int, bytes]], span_s: int) -> list[Segment]:
        """Write frames to files that do not belong to the spool yet.

        Raises:
            OSError: nothing was changed.
            DamagedError: likewise.
        """
        self.sync()
        number = self.state.next_segment
        for old in self.folder.glob("*.seg"):  # what a try left that failed
            if old.stem.isdecimal() and int(old.stem) >= number:
                old.unlink()
        return frames_of.write_segments(self.folder, number, frames, span_s, self._segment_bytes)

    def replace(self, first: int, end: int, made: list[Segment], state: SpoolState) -> None:
        """Let segments take the place of others, which are removed; one write of the state does it.

        Raises:
            OSError: nothing was changed.
        """
        if end == len(self.segments):
            self._close_handle()
        kept = [*self.segments[:first], *made, *self.segments[end:]]
        notes = tuple(SegmentNote(one.number, one.span_s) for one in kept)
        numbers = [state.next_segment - 1, *(one.number for one in made)]
        _sync_folder(self.folder)
        self.save(replace(state, segments=notes, next_segment=max(numbers) + 1))
        gone, self.segments = self.segments[first:end], kept
        for one in gone:
            with suppress(OSError):
                one.path.unlink()

    def save(self, state: SpoolState) -> None:
        """Write the state; it is on the disk then.

        Raises:
            OSError: it is what it was.
        """
        write_state(self.folder, state)
        self.state, self.kept_ack = state, state.acked_through

    def lose(self, lost: Lost, untold: Lost = NOTHING) -> SpoolState:
        """Give the state with more to tell: what is lost now, and what something that is lost had to tell."""
        return replace(
            self.state,
            lost=add_lost((self.state.lost, lost, untold)),
            total_lost=add_lost((self.state.total_lost, lost)),
        )

    def sync(self) -> None:
        """Put what was appended on the disk.

        Raises:
            OSError: it may not be there.
        """
        if self._unsynced and self._handle >= 0:
            os.fdatasync(self._handle)
        self._unsynced = 0

    def _close_handle(self) -> None:
        handle, self._handle = self._handle, -1
        if handle >= 0:
            os.close(handle)

    # --- damage

    def mending(self, work: Callable[[], T]) -> T:
        """Do what reads frames; where one is damaged, leave it out, count it, and do it again."""
        while True:
            try:
                return work()
            except (DamagedError, FileNotFoundError):
                self.recover()

    def recover(self) -> None:
        """Read all segments, and write those that are damaged anew without the damage.

        Raises:
            OSError: they cannot be read, or not be written.
        """
        self.sync()
        self._close_handle()
        self.folder.mkdir(parents=True, exist_ok=True)
        named = {frames_of.segment_path(self.folder, one.number) for one in self.state.segments}
        for path in self.folder.iterdir():
            if (path.suffix == ".seg" and path not in named) or path.name.startswith(f".{STATE_FILE}."):
                path.unlink()
        found = recover(self.folder, self.state)
        self.segments = found.segments
        self._take_up_last(found)
        for place in sorted(found.damaged, reverse=True):
            segment, windows = self.segments[place], found.damaged[place]
            LOG.warning("%s: %d windows cannot be read", segment.path, windows)
            self.rewrite(place, place + 1, self.bodies([segment]), segment.span_s, Lost(damaged=windows))

    def _take_up_last(self, found: Recovered) -> None:
        """Go on from the last window, which may be later than the state."""
        last = next((one for one in reversed(self.segments) if one.frames), None)
        if last is None:
            return
        seq = last.frames[-1].seq
        if seq >= self.state.next_seq:
            body = self.body(last, last.frames[-1])
            note = frames_of.note_of(body)
            self.state = replace(
                self.state,
                next_seq=seq + 1,
                link=frames_of.report_of(body).link,
                positions=note.positions,
                acked_through=max(note.acked_through, self.state.acked_through),
                acked_at=note.acked_at or self.state.acked_at,
                lost=NOTHING,
            )
        if found.is_end_damaged:
            # the number of what cannot be read at the end may have been sent
            self.state = replace(self.state, next_seq=max(self.state.next_seq, seq + 2))

    def _begin(self) -> SpoolState:
        state = start_anew(self.folder)
        if state.lost != NOTHING:
            LOG.warning("%s: its state was lost, with %d windows", self.folder, state.lost.damaged)
        write_state(self.folder, state)
        return state


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
