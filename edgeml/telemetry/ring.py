"""A ring in shared memory: where a process puts down each inference, and whence another reads it.

A file holds a header of one page, a table of texts (labels and types of errors) that entries name by index,
and slots. Each entry is written by one ``struct.pack_into``, which clears the slot and then writes in order:
the entry's number stands last, so that a process killed in between leaves no entry that is false.

The owner holds ``flock`` on the file for as long as it lives. The kernel lets go of it whatever ends the
process; a process's number would not tell, as it is given away again.
"""

from __future__ import annotations

import errno
import json
import mmap
import os
import re
import struct
import sys
import threading
import weakref
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from itertools import chain, count, repeat
from pathlib import Path
from typing import Final

from edgeml import typed_json
from edgeml.telemetry.report import OTHER

MAGIC: Final = b"edgemlR\0"
VERSION: Final = 1
SUFFIX: Final = ".ring"
PAGE: Final = 4096
HEADER: Final = struct.Struct("=8sHHIIIIIQ")
"""Magic, version, state, bytes of an entry, slots, labels and errors in the table, bytes of the description
in JSON that follows, number of the last entry of a ring that was emptied unread."""
STATE_AT: Final = 10
EMPTIED_AT: Final = 32
RUNNING: Final = 0
CLOSED: Final = 1

CALL: Final = struct.Struct("=5dIHHQ")
"""End and begin by the monotonic clock; seconds of preprocess, run and postprocess, 0 where not told;
confidence in 1e-9 and one more, 0 for none; label and error, both an index into the texts and one more, 0 for
none; number. Instead of the begin stands the latency, negated, where that is what the caller measured."""
PLAIN_CALL: Final = struct.Struct("=2d32xQ")
"""The same of which only end and begin are known."""
TEXT_BYTES: Final = 64
"""Of a text in UTF-8 with its length in front."""
LABELS: Final = 2048
ERRORS: Final = 64
BEYOND: Final = 0xFFFF
"""Stands for what the table had no room for."""
LEAST_SLOTS: Final = 64
MOST_SLOTS: Final = 2**20
MOST_ENTRIES: Final = 2**53
"""That a ring may count: more cannot be."""
LONGEST_FEATURE: Final = 128
"""Characters of a name."""
_MODEL: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_WORD: Final = re.compile(r"[A-Za-z0-9._+-]{0,128}")


@dataclass(frozen=True, slots=True)
class RingInfo:
    """What a ring says of itself."""

    model: str
    release: int = 0
    variant: str = ""
    runtime: str = ""
    ring: str = ""
    """Random, 16 hex digits; the name of its file."""
    pid: int = 0
    boot_id: str = ""
    created: float = 0.0
    """Wall clock."""
    of: str = ""
    """Of a ring of feature vectors: the ring of the calls that they belong to."""
    features: tuple[str, ...] = ()
    """Of a ring of feature vectors: their names."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where things are in a ring's file."""

    slots: int
    entry_bytes: int
    labels: int = 0
    errors: int = 0

    @property
    def slots_at(self) -> int:
        texts = (self.labels + self.errors) * TEXT_BYTES
        return PAGE + -(-texts // PAGE) * PAGE

    @property
    def size_bytes(self) -> int:
        return self.slots_at + self.slots * self.entry_bytes

    def text_at(self, index: int) -> int:
        return PAGE + index * TEXT_BYTES


def is_sound(info: RingInfo) -> bool:
    """Say whether names and numbers are ones that a reader takes."""
    is_named = (
        _MODEL.fullmatch(info.model) and _WORD.fullmatch(info.variant) and _WORD.fullmatch(info.runtime)
    )
    return bool(is_named) and 0 <= info.release < MOST_ENTRIES and all(map(is_feature, info.features))


def is_feature(name: object) -> bool:
    """Say whether this can be the name of a feature."""
    return isinstance(name, str) and 0 < len(name) <= LONGEST_FEATURE


def vector(features: int) -> struct.Struct:
    """Give the layout of an entry of so many features: number of the call, the values, its own number."""
    return struct.Struct(f"={1 + features}dQ")


class Ring:
    """A ring as its owner sees it.

    ``number, place = next(ring.places)``, then ``pack_into(ring.map, place, …, number)`` writes an entry. Any
    thread may do so at any time.
    """

    __slots__ = (
        "__weakref__",
        "_errors",
        "_file",
        "_indices",
        "_labels",
        "_lock",
        "info",
        "layout",
        "map",
        "path",
        "places",
    )

    places: Iterator[tuple[int, int]]
    """Gives the number of the next entry, from 1, and its place in ``map``."""

    def __init__(self, info: RingInfo, layout: Layout, folder: Path | None = None) -> None:
        """Make a ring in ``folder``; without one, in memory that no other process sees.

        Raises:
            OSError: the folder cannot be written, or has no room.
        """
        self.info, self.layout = info, layout
        self.places = _places(layout)
        self._lock = threading.RLock()  # a signal's handler or a finaliser may record, too
        self._file: int | None = None
        self.path: Path | None = None
        if folder is None:
            self.map = mmap.mmap(-1, layout.size_bytes)
        else:
            self.path = folder / f"{info.ring}{SUFFIX}"
            self._make(self.path)
        self._labels: dict[Hashable, int] = {}
        self._errors: dict[Hashable, int] = {}
        self._indices = count(), count(layout.labels)
        _RINGS.add(self)

    def _make(self, path: Path) -> None:
        import fcntl  # Linux and macOS

        scratch = path.with_suffix(".new")
        file = os.open(scratch, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            # all of its memory now: where there is none left later, a write would end the process
            _allocate(file, self.layout.size_bytes)
            os.fchmod(file, 0o644)
            # by a handle of its own, as the map keeps a copy of it that children inherit
            with scratch.open("r+b", buffering=0) as other:
                self.map = mmap.mmap(other.fileno(), self.layout.size_bytes)
            described = json.dumps(typed_json.write(self.info), separators=(",", ":")).encode()
            if HEADER.size + len(described) > PAGE:
                raise OSError(errno.ENAMETOOLONG, "names that are too long together", str(path))  # noqa: TRY301
            one = self.layout
            head = (
                MAGIC,
                VERSION,
                RUNNING,
                one.entry_bytes,
                one.slots,
                one.labels,
                one.errors,
                len(described),
                0,
            )
            self.map[: HEADER.size + len(described)] = HEADER.pack(*head) + described
            scratch.rename(path)
        except BaseException:
            os.close(file)
            scratch.unlink(missing_ok=True)
            raise
        self._file = file

    def label(self, label: Hashable) -> int:
        """Give what stands for a label in an entry."""
        return self._labels.get(label) or self._added(
            label, self._labels, self._indices[0], self.layout.labels
        )

    def error(self, kind: str) -> int:
        """Give what stands for an error's type in an entry."""
        one = self.layout
        return self._errors.get(kind) or self._added(
            kind, self._errors, self._indices[1], one.labels + one.errors
        )

    def _added(self, text: Hashable, known: dict[Hashable, int], indices: Iterator[int], end: int) -> int:
        if isinstance(text, str):
            text = text[: TEXT_BYTES - 1]  # no more of it is written, and no more kept in memory
        with self._lock:
            if text not in known:
                index = next(indices)  # whoever interrupts this takes another
                if index >= end:
                    return BEYOND
                written = text_to_bytes(str(text))
                place = self.layout.text_at(index)
                self.map[place : place + len(written)] = written
                known[text] = index + 1
            return known[text]

    def text(self, code: int) -> str:
        """Give the text of a label or an error in an entry."""
        if code == BEYOND:
            return OTHER
        place = self.layout.text_at(code - 1)
        return text_from_bytes(self.map[place : place + TEXT_BYTES])

    def close(self, *, is_ending: bool = False) -> None:
        """Say that no more comes, and leave the file to its reader. Idempotent.

        A call under way may write into it still. Does nothing in the child of a fork.

        Args:
            is_ending: the process ends: the ring is owned, and may be written to, until it did.
        """
        if self._file is None or self.path is None or self.info.pid != os.getpid():
            return
        with self._lock:
            file, self._file = self._file, None
            if file is None:
                return
            written = next(self.places)[0] - 1
            self.map[STATE_AT : STATE_AT + 2] = CLOSED.to_bytes(2, sys.byteorder)
            try:
                if written == 0:
                    self.path.unlink(missing_ok=True)
                else:
                    self._give_back(written)
            except (OSError, AttributeError):  # not Linux, or a file system that cannot
                pass
            finally:
                if not is_ending:
                    os.close(file)

    def _give_back(self, written: int) -> None:
        """Give back the memory of slots that were never used; who writes there all the same gets it again."""
        used = self.layout.slots_at + (written + 1) * self.layout.entry_bytes
        first = -(-used // PAGE) * PAGE
        if first < self.layout.size_bytes:
            self.map.madvise(mmap.MADV_REMOVE, first, self.layout.size_bytes - first)

    def __del__(self) -> None:
        self.close()

    def let_go(self) -> None:
        """In the child of a fork: leave the ring to its owner."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


def text_to_bytes(text: str) -> bytes:
    """Give a text with its length in front, cut to what fits."""
    cut = text.encode("utf-8", "replace")[: TEXT_BYTES - 1].decode("utf-8", "ignore").encode()
    return bytes([len(cut)]) + cut


def text_from_bytes(data: bytes) -> str:
    """Read what :func:`text_to_bytes` gave, or a stranger wrote."""
    length = min(data[0], TEXT_BYTES - 1) if data else 0
    return "".join(one for one in data[1 : 1 + length].decode("utf-8", "replace") if one.isprintable())


def _places(layout: Layout) -> Iterator[tuple[int, int]]:
    """Give what counts entries and their places, for all threads at once: one step of C under the GIL.

    The first entry stands in slot 1, so that entry ``n`` is in slot ``n % slots``.
    """
    size, first = layout.entry_bytes, layout.slots_at
    around = range(first, first + layout.slots * size, size)
    places = enumerate(chain(around[1:], chain.from_iterable(repeat(around))), 1)
    has_gil: Callable[[], bool] = getattr(sys, "_is_gil_enabled", lambda: True)
    return places if has_gil() else _InTurn(places)


class _InTurn:
    """An iterator that threads which run at once may share."""

    def __init__(self, places: Iterator[tuple[int, int]]) -> None:
        self._places, self._lock = places, threading.RLock()

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return self

    def __next__(self) -> tuple[int, int]:
        with self._lock:
            return next(self._places)


def _allocate(file: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, size)
    else:  # macOS
        os.write(file, bytes(size))


_RINGS: Final[weakref.WeakSet[Ring]] = weakref.WeakSet()


def _after_fork() -> None:
    for ring in list(_RINGS):
        ring.let_go()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
