"""Reads what the processes of a device recorded, each inference once."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from edgeml.telemetry.folder import is_owned
from edgeml.telemetry.gathering import Gathered, Key
from edgeml.telemetry.raw import MOST_NAMES, raw_files
from edgeml.telemetry.reference import Reference
from edgeml.telemetry.report import ModelWindow
from edgeml.telemetry.ring import SUFFIX
from edgeml.telemetry.ring_file import DamagedRingError, RingFile, fresh, is_ring, ring_of
from edgeml.telemetry.samples import RawInputs

MOST_RINGS: Final = 512
"""Of living processes, that are read: strangers may put any number there."""
MOST_HELD: Final = 128
"""Of those, that are kept open."""
FINISHED: Final = -1
"""Position of a ring that was read to its end and gets no more."""

References = Callable[[str, int], Reference | None]
"""Gives the reference of a model's release."""


@dataclass(frozen=True, slots=True)
class Drained:
    """What came since the reading before."""

    models: tuple[ModelWindow, ...] = ()
    overwritten: int = 0
    """Inferences that were overwritten before they were read."""
    damaged: int = 0
    """Rings that could not be read, each told once."""
    positions: Mapping[str, int] = field(default_factory=dict)
    """To begin with after a restart. Keep them in the same step as what stands here."""


class RingReader:
    """The one reader of a device's rings. For one thread.

    Each :meth:`read` goes on from the one before. What it gave counts once and only once if the caller keeps
    it together with its ``positions``, then calls :meth:`kept`, and after a restart begins with the positions
    that were kept last.
    """

    def __init__(
        self,
        folder: Path,
        positions: Mapping[str, int] | None = None,
        *,
        references: References | None = None,
        random_numbers: random.Random | None = None,
    ) -> None:
        """Begin to read.

        Args:
            folder: of the rings (``telemetry_settings().folder``); it need not exist.
            positions: of the last :class:`Drained` that was kept.
            references: what to count features against; without it they are not counted.
            random_numbers: choose samples.
        """
        self._folder = folder
        given = positions or {}
        self._positions = {ring: given[ring] for ring in given if is_ring(ring) and type(given[ring]) is int}
        self._references = references or (lambda _model, _release: None)
        self._random = random_numbers or random.Random()  # noqa: S311 - no secret
        self._holes: dict[str, int] = {}
        self._damaged: set[str] = set()
        self._held: dict[str, RingFile] = {}
        """Rings of living processes: somebody may remove the files (``rm``, or logind's ``RemoveIPC``)."""
        self.kept()

    def read(self) -> Drained:
        """Read all that was recorded since. Never raises for what it finds in the folder."""
        found: dict[Key, Gathered] = {}
        positions: dict[str, int] = {}
        overwritten = damaged = 0
        for path, ring in self._rings():
            position = max(self._positions.get(ring, 0), FINISHED)
            if position == FINISHED:
                if os.path.lexists(path):
                    positions[ring] = FINISHED
                continue
            positions[ring] = position
            try:
                lost, positions[ring] = self._read(path, ring, position, found)
                overwritten += lost
            except FileNotFoundError:
                del positions[ring]
            except DamagedRingError:
                if ring not in self._damaged:
                    self._damaged.add(ring)
                    damaged += 1
                if not is_owned(path):
                    positions[ring] = FINISHED
        self._positions = positions
        self._holes = {ring: hole for ring, hole in self._holes.items() if ring in positions}
        self._damaged &= positions.keys()
        raw: dict[str, set[int]] = {}
        for _, ring, number in raw_files(self._folder):
            raw.setdefault(ring, set()).add(number)
        models = tuple(
            one.window(key, self._references(key[0], key[1]), RawInputs(self._folder, raw), self._random)
            for key, one in sorted(found.items())
            if not one.is_empty()
        )
        return Drained(models, overwritten, damaged, dict(positions))

    def kept(self) -> None:
        """Take away the rings that were read to their end, and inputs: what was read of them is kept now."""
        for path, ring, number in raw_files(self._folder):
            position = self._positions.get(ring, 0)
            if position == FINISHED or number <= position or not os.path.lexists(self._ring(ring)):
                with suppress(OSError):
                    path.unlink()
        for ring, position in self._positions.items():
            if position == FINISHED:
                with suppress(
                    OSError
                ):  # another user's, in a folder of a third: it is cleared up by its user
                    self._ring(ring).unlink()

    def _ring(self, ring: str) -> Path:
        return self._folder / f"{ring}{SUFFIX}"

    def _rings(self) -> list[tuple[Path, str]]:
        """List the rings: those that were read before, and as many new ones as there may be."""
        known = list(self._positions)
        room = MOST_RINGS - sum(position != FINISHED for position in self._positions.values())
        try:
            with os.scandir(self._folder) as entries:
                paths = [
                    self._folder / entry.name for entry, _ in zip(entries, range(MOST_NAMES), strict=False)
                ]
        except OSError:
            paths = []
        new = sorted({ring for path in paths if (ring := ring_of(path)) is not None} - self._positions.keys())
        return [(self._ring(ring), ring) for ring in (*known, *new[: max(0, room)])]

    def _read(self, path: Path, ring: str, position: int, found: dict[Key, Gathered]) -> tuple[int, int]:
        """Gather what is new in a ring; give how many calls were lost, and where it was read to."""
        with self._opened(path, ring) as file:
            hole = self._holes.get(ring, 0)
            new = fresh(file.read, file.layout, position, is_owned=file.is_owned, hole=hole)
            info = file.info
            gathered = found.setdefault((info.model, info.release, info.variant, info.runtime), Gathered())
            if info.of:
                gathered.add_features(info, new.entries)
            else:
                gathered.add_calls(file, new.entries)
            self._holes[ring] = new.hole
            lost = 0 if info.of else new.lost + max(0, file.emptied_at - new.position)
            return lost, new.position if file.is_owned else FINISHED

    @contextmanager
    def _opened(self, path: Path, ring: str) -> Iterator[RingFile]:
        """Open a ring, and keep it open while its process lives: what was removed is read to its end."""
        with ExitStack() as stack:
            held = self._held.pop(ring, None)
            if held is not None:
                stack.push(held)
            try:
                file = stack.enter_context(RingFile(path))
            except FileNotFoundError:
                if held is None:
                    raise
                file = held
                file.look_again()
            yield file
            if file.is_owned and len(self._held) < MOST_HELD:
                self._held[ring] = file
                stack.pop_all()
                if held is not None and held is not file:
                    held.close()
