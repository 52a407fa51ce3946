"""The one loop of a device: reads the rings, makes a report a minute, keeps it, and sends what waits."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from edgeml.errors import EdgemlError, UsageError
from edgeml.installed import InstalledModel
from edgeml.manifest_json import loads
from edgeml.telemetry.clock import boot_clock, boot_id, clock_state
from edgeml.telemetry.folder import ring_folder
from edgeml.telemetry.judging import Judging
from edgeml.telemetry.machine import Meter
from edgeml.telemetry.merging import merge_models
from edgeml.telemetry.power import PowerMeter
from edgeml.telemetry.read_mark import ReadMark
from edgeml.telemetry.reading import Drained, RingReader
from edgeml.telemetry.reference import Reference, reference_from_json
from edgeml.telemetry.report import MOST_MODELS, Lost, ModelWindow, Report, Summary
from edgeml.telemetry.ring import SUFFIX
from edgeml.telemetry.ring_file import DamagedRingError, RingFile
from edgeml.telemetry.sender import Outcome, Post, Sender
from edgeml.telemetry.settings import FOLDER
from edgeml.telemetry.spool import BUDGET_BYTES, Spool, open_spool
from edgeml.telemetry.spool_files import Durability

LOG: Final = logging.getLogger("edgeml.telemetry")
WINDOW_S: Final = 60.0
LEAST_WINDOW_S: Final = 1.0
MOST_WINDOW_S: Final = 3600.0
SPOOL: Final = "spool"
"""The spool's folder in the home folder."""
_TICK_S: Final = 10.0
"""Rings and machine are read so often: a ring holds what 1,600 inferences a second leave in that time."""
_TAKE_EVERY_S: Final = 15.0
"""Another process may own the spool, and may end."""
_MOST_WAITS: Final = 6
"""Doublings of that time while it fails."""
_MOST_PIDS: Final = 64
_MOST_REFERENCES: Final = 64
_MOST_MANIFEST_BYTES: Final = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class TelemetryPlan:
    """How a device keeps and sends its telemetry."""

    home: Path
    rings: Path
    """Where processes record."""
    window_s: float = WINDOW_S
    budget_bytes: int = BUDGET_BYTES
    durability: Durability = "window"
    tick_s: float = _TICK_S
    root: Path = Path("/")
    """Where ``proc`` and ``sys`` are."""

    @property
    def spool(self) -> Path:
        return self.home / SPOOL


def plan_of(
    home: Path,
    rings: Path | None = None,
    *,
    window_s: float = WINDOW_S,
    budget_bytes: int = BUDGET_BYTES,
    durability: Durability = "window",
) -> TelemetryPlan:
    """Plan the telemetry of a home folder; without ``rings`` it is of those who record for this home."""
    found = rings or Path(os.environ.get(FOLDER) or ring_folder(home))
    return TelemetryPlan(home, found, window_s, budget_bytes, durability, min(_TICK_S, window_s))


def run_telemetry(plan: TelemetryPlan, post: Post, stop: threading.Event) -> None:
    """Work until stopped, whenever the spool is free. Raises nothing: what fails is tried again."""
    failures = 0
    while not stop.is_set():
        try:
            spool = open_spool(plan.spool, budget_bytes=plan.budget_bytes, durability=plan.durability)
            if spool is not None:
                with spool:
                    _Owner(plan, spool, post, stop).run()
            failures = 0
        except Exception:
            LOG.exception("telemetry cannot be kept in %s", plan.spool)
            failures = min(failures + 1, _MOST_WAITS)
        stop.wait(min(_TAKE_EVERY_S, plan.window_s) * 2**failures)


class _Owner:
    """The process that owns the spool."""

    def __init__(self, plan: TelemetryPlan, spool: Spool, post: Post, stop: threading.Event) -> None:
        self._plan, self._spool, self._stop = plan, spool, stop
        self._boot = boot_id(plan.root)
        self._references = InstalledReferences(plan.home)
        self._mark, self._is_second = ReadMark(plan.rings), False
        self._reader = self._make_reader(spool.state.positions)
        self._judging = Judging(plan.home, self._references, window_s=plan.window_s)
        self._sender = Sender(spool, post, boot=self._boot)
        self._meter = Meter(plan.root, lambda: recording_pids(plan.rings))
        self._power = PowerMeter(plan.root)
        self._models: list[ModelWindow] = []
        self._overwritten = 0
        self._drained = Drained(positions=spool.state.positions)
        last = spool.last()
        is_of_this_boot = last is not None and last.boot_id == self._boot and last.end_s <= boot_clock()
        self._last_end_s = last.end_s if last is not None and is_of_this_boot else None
        self._begun_s = boot_clock()

    def run(self) -> None:
        with closing(self._mark):
            while not self._stop.is_set():
                self._pass(self._begun_s + self._plan.window_s)
                self._cut()
            self._judging.finish()

    def _make_reader(self, positions: Mapping[str, Any]) -> RingReader:
        return RingReader(self._plan.rings, positions, references=self._references)

    def _pass(self, until_s: float) -> None:
        """Send, and read rings and machine now and then, until a window ends."""
        next_s = boot_clock()
        while not self._stop.is_set() and (now_s := boot_clock()) < until_s:
            if now_s >= next_s:
                next_s = now_s + self._plan.tick_s
                self._read()
            if self._sender.send() is Outcome.SENT:
                continue
            self._stop.wait(max(0.0, min(next_s, until_s) - boot_clock()))

    def _read(self) -> None:
        self._drained = self._drain()
        self._models += self._drained.models
        self._overwritten += self._drained.overwritten
        if self._drained.damaged:
            LOG.warning("%s: %d rings cannot be read", self._plan.rings, self._drained.damaged)
        self._meter.sample()
        watts = self._power.sample()
        if watts is not None:
            self._meter.add("power_watts", watts)

    def _drain(self) -> Drained:
        was_held, positions = self._mark.is_held, self._drained.positions
        if not self._mark.take():
            if not self._is_second:
                self._is_second = True
                LOG.warning("%s: another process reads these rings, for another home", self._plan.rings)
            return Drained(positions=positions)
        if self._mark.is_held and not was_held:
            self._reader = self._make_reader(self._mark.newest(positions))
        return self._reader.read()

    def _cut(self) -> None:
        self._read()
        now_s, system = boot_clock(), self._meter.cut()
        report = self._report(now_s, system)
        self._models, self._overwritten, self._begun_s, self._last_end_s = [], 0, now_s, None
        self._spool.append(report, self._drained.positions)
        if not self._spool.held:
            self._mark.keep(self._drained.positions)
            self._reader.kept()
        self._judging.add(report)

    def _report(self, now_s: float, system: dict[str, Summary]) -> Report:
        begun_s = self._begun_s
        if self._models and self._last_end_s is not None:
            begun_s = self._last_end_s  # what was recorded while nobody read
        # the server takes no more: any process of the device may say that it runs a hundred models
        models = sorted(merge_models(self._models), key=lambda one: -one.calls)
        overwritten = self._overwritten + sum(one.calls for one in models[MOST_MODELS:])
        return Report(
            seq=0,
            link="",
            boot_id=self._boot,
            start_s=begun_s,
            end_s=now_s,
            at=time.time(),
            clock=clock_state(self._plan.root),
            models=tuple(models[:MOST_MODELS]),
            system=system,
            energy_joules=self._power.cut_joules(),
            lost=Lost(overwritten=overwritten),
        )


class InstalledReferences:
    """References of the releases that are installed, read once each."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._found: dict[tuple[str, int], Reference] = {}
        self._told: set[tuple[str, int]] = set()

    def __call__(self, model: str, release: int) -> Reference | None:
        """Give a release's reference; ``None``: it has none, or is not here."""
        key = (model, release)
        if key in self._found:
            return self._found[key]
        found = self._read(model, release)
        if found is not None:
            if len(self._found) >= _MOST_REFERENCES:
                self._found.clear()
            self._found[key] = found
        return found

    def _read(self, model: str, release: int) -> Reference | None:
        where = f"{model} {release}: drift"
        try:
            path = InstalledModel(self._home, model).release_folder(release) / "manifest.json"
            if path.stat().st_size <= _MOST_MANIFEST_BYTES:
                return reference_from_json(loads(path.read_bytes()).drift, where)
        except (UsageError, FileNotFoundError, NotADirectoryError):
            return None  # recorded by code that is not installed
        except (OSError, EdgemlError, ValueError) as error:
            if (model, release) not in self._told and len(self._told) < _MOST_REFERENCES:
                self._told.add((model, release))
                LOG.warning("%s: cannot be judged, its reference cannot be read: %s", where, error)
        return None


def recording_pids(rings: Path) -> Iterator[int]:
    """Give the processes that record, each once."""
    found: set[int] = set()
    for path in sorted(rings.glob(f"*{SUFFIX}"))[:_MOST_PIDS]:
        with suppress(OSError, DamagedRingError), RingFile(path) as file:
            if file.is_owned and file.info.pid not in found:
                found.add(file.info.pid)
                yield file.info.pid
