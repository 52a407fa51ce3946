"""What the server has not acknowledged yet: reports on the disk, each with a number, none lost in silence.

One process owns the folder. A power cut or a kill at any call leaves every window that was appended, once.
While the disk is full, windows are kept in memory.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Self

from edgeml.telemetry.compaction import SPANS_S, merged
from edgeml.telemetry.merging import add_lost, can_merge, merge_reports
from edgeml.telemetry.report import MOST_BYTES, MOST_REPORTS, Lost, Report
from edgeml.telemetry.segments import SEGMENT_BYTES, Note, Segment, note_of, pack, report_of, text_of
from edgeml.telemetry.spool_files import LOG, Durability, SpoolFiles
from edgeml.telemetry.spool_lock import SpoolLock, take_lock
from edgeml.telemetry.spool_state import SpoolState, new_epoch

BUDGET_BYTES: Final = 4 * 1024 * 1024
LEAST_BUDGET_BYTES: Final = 64 * 1024
_AHEAD: Final = 15
"""Numbers that are marked as sent before they are made, where all is sent: one write for so many windows."""
_HEAD_BYTES: Final = 512
"""Of a batch, beside its reports."""
_HELD: Final = 32
"""Windows in memory, while the disk is full, before they are merged."""
_AT_ONCE: Final = 8
"""Segments that are merged in one go: so much of the disk is needed for a moment."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A window on its way out."""

    seq: int
    text: bytes
    """The report as JSON."""


def open_spool(
    folder: Path,
    *,
    budget_bytes: int = BUDGET_BYTES,
    durability: Durability = "window",
    clock: Callable[[], float] = time.time,
) -> Spool | None:
    """Own a folder and read what is in it; ``None``: another process owns it.

    Args:
        folder: made where it is missing.
        budget_bytes: of segments; beyond it windows are merged, then given up.
        durability: ``relaxed`` loses up to ten windows in a power cut, and writes less.
        clock: wall clock, seconds.

    Raises:
        OSError: the folder cannot be made, read or repaired.
    """
    lock = take_lock(folder)
    if lock is None:
        return None
    try:
        segment_bytes = max(4096, min(SEGMENT_BYTES, budget_bytes // 8))
        return Spool(lock, SpoolFiles(folder, segment_bytes, durability), budget_bytes, clock)
    except BaseException:
        lock.close()
        raise


class Spool:
    """Made by :func:`open_spool`; for one thread at a time. ``with`` closes."""

    def __init__(
        self, lock: SpoolLock, files: SpoolFiles, budget_bytes: int, clock: Callable[[], float]
    ) -> None:
        self._lock, self._files, self._budget_bytes, self._clock = lock, files, budget_bytes, clock
        self._held: list[tuple[Report, Mapping[str, Any]]] = []
        self._is_closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def state(self) -> SpoolState:
        """Epoch, numbers, positions of the rings as of the last window on the disk, what was lost."""
        return self._files.state

    @property
    def last_seq(self) -> int:
        """Number of the last window that is on the disk; -1: none was made in this epoch."""
        return self.state.next_seq - 1

    @property
    def size_bytes(self) -> int:
        """Of all segments."""
        return self._files.size_bytes

    @property
    def held(self) -> int:
        """Windows in memory only, as the disk takes none."""
        return sum(report.windows for report, _ in self._held)

    @property
    def waiting(self) -> int:
        """Reports on the disk that the server has not acknowledged."""
        return sum(frame.seq > self.state.acked_through for _, frame in self._files.frames())

    def last(self) -> Report | None:
        """Give the last window that is on the disk."""
        found = self._files.mending(self._last_body)
        return None if found is None else report_of(found)

    def _last_body(self) -> bytes | None:
        last = next((one for one in reversed(self._files.segments) if one.frames), None)
        return None if last is None else self._files.body(last, last.frames[-1])

    def close(self) -> None:
        """Write down how far the server has acknowledged; what is held is tried once more."""
        if self._is_closed:
            return
        self._is_closed = True
        try:
            with suppress(OSError):
                self._write_held()
            self._files.close()
        finally:
            self._lock.close()

    # --- in

    def append(self, report: Report, positions: Mapping[str, Any]) -> None:
        """Keep a window; its ``seq``, ``link``, ``prev`` and ``first`` are given here.

        It is on the disk when this returns; where the disk takes nothing, it is held in memory and tried
        again with the next one.
        """
        self._held.append((report, positions))
        try:
            self._write_held()
        except OSError as error:
            if len(self._held) == 1:
                LOG.warning("%s: %s; windows are kept in memory", self._files.folder, error)
            self._hold_less()
            return
        try:
            self._files.mending(self._make_room)
        except OSError as error:
            LOG.warning("%s: cannot be made smaller: %s", self._files.folder, error)

    def _write_held(self) -> None:
        while self._held:
            report, positions = self._held[0]
            begins = self.state.next_seq
            numbered = replace(
                report,
                seq=begins + report.windows - 1,
                first=begins if report.windows > 1 else None,
                link=secrets.token_hex(8),
                prev=self.state.link,
            )
            self._files.append(numbered, positions)
            del self._held[0]

    def _hold_less(self) -> None:
        """Merge what is held, and give up the oldest when that is not enough."""
        if len(self._held) <= _HELD:
            return
        for place in range(len(self._held) - 1):
            (one, _), (other, positions) = self._held[place : place + 2]
            if can_merge(one, other, SPANS_S[-1]):
                self._held[place : place + 2] = [(merge_reports([one, other]), positions)]
                return
        given_up, _ = self._held.pop(0)
        self._files.state = self._files.lose(Lost(evicted=given_up.windows), given_up.lost)

    # --- out

    def batch(self, most: int = MOST_REPORTS, limit_bytes: int = MOST_BYTES) -> tuple[Waiting, ...]:
        """Give what is to be sent next, oldest first; that it may have been sent is on the disk then.

        Raises:
            OSError: that cannot be written: nothing may be sent.
        """
        found = self._files.mending(lambda: self._next(most, limit_bytes - _HEAD_BYTES))
        if not found:
            return ()
        self._files.sync()
        last, state = found[-1].seq, self.state
        if last > state.sent_through:
            state = replace(state, sent_through=last + (_AHEAD if last == self.last_seq else 0))
        # the server knows again what came in its last request, and what came before only as a fork
        if state is not self.state or state.acked_through > self._files.kept_ack:
            self._files.save(state)
        return tuple(found)

    def _next(self, most: int, room_bytes: int) -> list[Waiting]:
        found: list[Waiting] = []
        for segment, frame in self._files.frames():
            if frame.seq <= self.state.acked_through:
                continue
            text = text_of(self._files.body(segment, frame))
            room_bytes -= len(text) + 1
            if found and (room_bytes < 0 or len(found) == most):
                break
            found.append(Waiting(frame.seq, text))
        return found

    def acknowledge(self, through: int) -> None:
        """Forget windows up to a number, which the server has stored.

        The disk knows it with the next window, or before the next batch.

        Raises:
            OSError: it is forgotten all the same, but cannot be taken from the disk.
        """
        files = self._files
        if through <= files.state.acked_through:
            return
        files.state = replace(files.state, acked_through=through, acked_at=self._clock())
        done = 0
        while done < len(files.segments) - 1 and self._is_acked(files.segments[done]):
            done += 1
        try:
            if done:
                files.replace(0, done, [], files.state)
        except OSError:
            # a full disk: what the server has makes room for what it has not
            for segment in files.segments[:done]:
                os.truncate(segment.path, 0)
                segment.frames, segment.size_bytes = [], 0
            raise

    def _is_acked(self, segment: Segment) -> bool:
        return not segment.frames or segment.frames[-1].seq <= self.state.acked_through

    def refuse(self, seq: int) -> None:
        """Give up a window that the server will never take.

        Raises:
            OSError: it is still here.
        """
        self._files.mending(lambda: self._refuse(seq))

    def _refuse(self, seq: int) -> None:
        for place, segment in enumerate(self._files.segments):
            if any(frame.seq == seq for frame in segment.frames):
                self._give_up(place, {seq})
                return

    def begin_epoch(self) -> None:
        """Begin a new stream with all that is not acknowledged, numbered anew.

        Raises:
            OSError: the stream is what it was.
        """
        self._files.mending(self._renumber)

    def _renumber(self) -> None:
        files, number, link = self._files, 0, ""

        def renumbered() -> Iterator[tuple[int, bytes]]:
            nonlocal number, link
            for seq, body in files.bodies(files.segments):
                if seq <= files.state.acked_through:
                    continue
                report = report_of(body)
                last = number + report.windows - 1
                fresh = replace(report, seq=last, first=None if last == number else number, prev=link)
                number, link = last + 1, report.link
                yield last, pack(fresh, Note(note_of(body).positions))

        made = files.write(renumbered(), 0)
        state = replace(
            files.state, epoch=new_epoch(), next_seq=number, link=link, acked_through=-1, sent_through=-1
        )
        files.replace(0, len(files.segments), made, state)

    # --- smaller

    def _make_room(self) -> None:
        """Merge what may be merged, oldest first, and give up the oldest when nothing can."""
        for span_s in SPANS_S:
            if self.size_bytes > self._budget_bytes:
                self._merge(span_s)
        if self.size_bytes > self._budget_bytes:
            self._evict()

    def _merge(self, span_s: int) -> None:
        """Merge until an eighth of the budget is free."""
        segments, place = self._files.segments, 0
        while place < len(segments) - 1 and self.size_bytes > self._budget_bytes * 7 // 8:
            end = place
            while (
                end < len(segments) - 1 and end < place + _AT_ONCE and self._can_merge(segments[end], span_s)
            ):
                end += 1
            if end == place:
                place += 1
                continue
            frames = merged(self._files.bodies(segments[place:end]), span_s, self.state.sent_through)
            place += self._files.rewrite(place, end, frames, span_s)
            segments = self._files.segments

    def _can_merge(self, segment: Segment, span_s: int) -> bool:
        is_unsent = bool(segment.frames) and segment.frames[-1].seq > self.state.sent_through
        return is_unsent and segment.span_s < span_s

    def _evict(self) -> None:
        """Give up the oldest windows until a sixteenth of the budget is free; the last one stays."""
        surplus = self.size_bytes - self._budget_bytes * 15 // 16
        last = self._files.segments[-1].frames[-1:]
        while surplus > 0:
            going: set[int] = set()
            place = next(at for at, segment in enumerate(self._files.segments) if segment.frames)
            for frame in self._files.segments[place].frames:
                if surplus > 0 and [frame] != last:
                    going.add(frame.seq)
                    surplus -= frame.size_bytes
            if not going:
                return
            self._give_up(place, going)

    def _give_up(self, place: int, seqs: set[int]) -> None:
        """Forget windows of one segment; what they had to tell is told by the next one."""
        segment = self._files.segments[place]
        bodies = list(self._files.bodies([segment]))
        gone = [report_of(body) for seq, body in bodies if seq in seqs and seq > self.state.acked_through]
        lost = Lost(evicted=sum(one.windows for one in gone))
        untold = add_lost(one.lost for one in gone)
        kept = [(seq, body) for seq, body in bodies if seq not in seqs]
        self._files.rewrite(place, place + 1, kept, segment.span_s, lost, untold)
