"""What the server has not heard yet: events and windows of health, on the disk, each with its number."""

from __future__ import annotations

import json
import logging
import secrets
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import accumulate
from pathlib import Path
from typing import Final, TypeVar

from edgeml import typed_json
from edgeml.errors import MessageError
from edgeml_devices.agent.disk import make_folder, read_file, write_file
from edgeml_devices.messages import Accepted, Event, Health

LOG: Final = logging.getLogger("edgeml.agent")
T = TypeVar("T")
EVENTS_LIMIT: Final = 500
"""Beyond it the oldest events of progress go, those with a result never."""
HEALTH_LIMIT: Final = 300
"""A day of windows of one model; beyond it the oldest go."""
SENT_AT_ONCE: Final = 100
RECENT: Final = 20
_SEQ_BLOCK: Final = 1000
"""Numbers of reports are taken from the disk in blocks: a report costs no write."""


@dataclass(frozen=True, slots=True)
class _Events:
    epoch: str
    next_seq: int = 0
    report_seq: int = 0
    entries: Mapping[str, int] = field(default_factory=dict)
    """By model the entry of its record that the last event was made of."""
    events: tuple[Event, ...] = ()
    recent: tuple[Event, ...] = ()
    """The last ones, sent or not, for people."""
    schema: int = 1


@dataclass(frozen=True, slots=True)
class _Windows:
    epoch: str
    next_seq: int = 0
    health: tuple[Health, ...] = ()
    schema: int = 1


class Outbox:
    """Two files, each replaced whole. Safe to use from several threads.

    What cannot be written is kept in memory: a full disk must not stop reports.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        events = _read(_Events, folder / "events.json") or _Events(secrets.token_hex(8))
        windows = _read(_Windows, folder / "health.json")
        self._has_windows = windows is not None
        if windows is None or windows.epoch != events.epoch:
            # one of them was lost, or both are new: nothing that follows may look like what was sent
            epoch = secrets.token_hex(8)
            events, windows = replace(events, epoch=epoch), replace(windows or _Windows(epoch), epoch=epoch)
        self._events, self._windows = events, windows
        self._report_seq = self._reserved = self._events.report_seq

    @property
    def epoch(self) -> str:
        return self._events.epoch

    def next_report(self) -> int:
        """Give the number of the next report; it rises over restarts."""
        with self._lock:
            if self._report_seq == self._reserved:
                self._reserved += _SEQ_BLOCK
                self._events = replace(self._events, report_seq=self._reserved)
                self._write_events()
            self._report_seq += 1
            return self._report_seq - 1

    def add_event(self, entry: int, event: Event) -> None:
        """Keep the event of a state entered; once only for each entry of a model, whatever was killed."""
        with self._lock:
            if self._events.entries.get(event.model, -1) >= entry:
                return
            seq = self._events.next_seq
            events = _bounded((*self._events.events, replace(event, seq=seq)))
            entries = {**self._events.entries, event.model: entry}
            recent = (*self._events.recent, replace(event, seq=seq))[-RECENT:]
            self._events = replace(
                self._events, next_seq=seq + 1, entries=entries, events=events, recent=recent
            )
            self._write_events()

    def last_entry(self, model: str) -> int:
        """Give the entry of a model's record that the last event was made of; -1: none."""
        return self._events.entries.get(model, -1)

    def recent(self) -> tuple[Event, ...]:
        """Give the last events, sent or not."""
        return self._events.recent

    def add_health(self, window: Health) -> None:
        with self._lock:
            seq = self._windows.next_seq
            kept = (*self._windows.health, replace(window, seq=seq))[-HEALTH_LIMIT:]
            self._windows = replace(self._windows, next_seq=seq + 1, health=kept)
            self._write_windows()

    def waiting(self) -> tuple[tuple[Event, ...], tuple[Health, ...]]:
        """Give what is to be sent next, oldest first."""
        with self._lock:
            return self._events.events[:SENT_AT_ONCE], self._windows.health[:SENT_AT_ONCE]

    def next_batch(self, most: int, limit_bytes: int) -> tuple[tuple[Event, ...], tuple[Health, ...]]:
        """Give what goes into the next report, events before windows: at least one if any waits."""
        with self._lock:
            waiting = (*self._events.events[:most], *self._windows.health[:most])[:most]
        ends = accumulate(map(size_bytes, waiting))
        taken = [one for one, end in zip(waiting, ends, strict=True) if end <= limit_bytes] or waiting[:1]
        return (
            tuple(one for one in taken if isinstance(one, Event)),
            tuple(one for one in taken if isinstance(one, Health)),
        )

    def drop(self, item: Event | Health) -> None:
        """Forget what the server will never take."""
        with self._lock:
            if isinstance(item, Event):
                events = tuple(one for one in self._events.events if one.seq != item.seq)
                self._events = replace(self._events, events=events)
                self._write_events()
            else:
                health = tuple(one for one in self._windows.health if one.seq != item.seq)
                self._windows = replace(self._windows, health=health)
                self._write_windows()

    def accepted(self, answer: Accepted) -> None:
        """Forget what the server has stored.

        An answer that names more than was ever numbered here is about another's reports: nothing is
        forgotten, and all that waits goes out under another epoch.
        """
        with self._lock:
            if answer.events >= self._events.next_seq or answer.health >= self._windows.next_seq:
                LOG.error(
                    "the server has reports of this device that it never sent (event %d, window %d): is a "
                    "copy of its token or of its disk in use? Reports go on under another epoch",
                    answer.events,
                    answer.health,
                )
                epoch = secrets.token_hex(8)
                self._events = replace(self._events, epoch=epoch)
                self._windows = replace(self._windows, epoch=epoch)
                self._write_windows()
                self._write_events()
                return
            events = tuple(event for event in self._events.events if event.seq > answer.events)
            if len(events) < len(self._events.events):
                self._events = replace(self._events, events=events)
                self._write_events()
            health = tuple(window for window in self._windows.health if window.seq > answer.health)
            if len(health) < len(self._windows.health):
                # not written: sent again after a restart, it changes nothing
                self._windows = replace(self._windows, health=health)

    def _write_events(self) -> None:
        if not self._has_windows:
            # both files are there from the first on: one that is missing was lost
            self._write_windows()
        _write(self._folder / "events.json", self._events)

    def _write_windows(self) -> None:
        self._has_windows = True
        _write(self._folder / "health.json", self._windows)


def size_bytes(value: object) -> int:
    """Give how many bytes a message has on its way."""
    return len(json.dumps(typed_json.write(value), ensure_ascii=False).encode("utf-8", "replace"))


def _bounded(events: tuple[Event, ...]) -> tuple[Event, ...]:
    over = len(events) - EVENTS_LIMIT
    if over <= 0:
        return events
    progress = [event.seq for event in events if event.result is None][:over]
    return tuple(event for event in events if event.seq not in progress)


def _read(kind: type[T], path: Path) -> T | None:
    try:
        return typed_json.read(kind, typed_json.parse(read_file(path), str(path)), str(path))
    except FileNotFoundError:
        return None
    except (OSError, MessageError) as error:
        LOG.warning("%s cannot be read: %s; what it held is lost, a new one is begun", path, error)
        return None


def _write(path: Path, value: object) -> None:
    with suppress(OSError):
        make_folder(path.parent)
        write_file(path, json.dumps(typed_json.write(value)).encode() + b"\n")
