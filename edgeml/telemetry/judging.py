"""The device judges itself: each release's last hour against its bundle's reference, offline.

Windows are added up for five minutes at a time; the last twelve of these sums are judged together, and each
moves the sums that show small drift that lasts (CUSUM). Of few inferences the sums reach back further than
an hour, until there are enough to be judged. Times are of the boot's clock, so that a wall clock that is set
changes no judgement. What is open is lost where a process is killed: at most five minutes of what CUSUM sums
up, and the last hour, which is then begun anew.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from edgeml.errors import MessageError
from edgeml.telemetry.cusum import HIGHEST, CusumState, cusum
from edgeml.telemetry.drift import FEWEST, LEVEL, Verdict, judge
from edgeml.telemetry.drift_file import DRIFT_FILE, Finding, ModelDrift, read_drift, write_drift
from edgeml.telemetry.merging import merge_models
from edgeml.telemetry.reading import References
from edgeml.telemetry.reference import Reference
from edgeml.telemetry.report import ModelWindow, Report

LOG: Final = logging.getLogger("edgeml.telemetry")
EVERY_S: Final = 300.0
SUMS: Final = 12
"""That are judged together: an hour."""
MOST_KEYS: Final = 16
"""Releases that are watched at a time."""
_WINDOWS: Final = 5
"""Where windows are shorter than a minute, so many make a sum."""
_MOST_COUNTS: Final = 16_384
"""Of one release in all its sums, 600 kB at most: of a reference with huge bins fewer sums are kept."""
_DAY_S: Final = 86_400.0

Key = tuple[str, int, str]
"""Model, release, digest of the reference."""


@dataclass(frozen=True, slots=True)
class _Sum:
    begin_s: float
    end_s: float
    window: ModelWindow


@dataclass(slots=True)
class _Track:
    """One release under watch."""

    drift: ModelDrift
    open: _Sum | None = None
    """What came since the last judgement."""
    sums: list[_Sum] = field(default_factory=list)
    """The oldest first."""
    last_s: float = -math.inf
    """When there was something last."""


class Judging:
    """Takes each window of a device, and keeps ``drift.json``. For one thread; no method raises.

    Judged so often at ``LEVEL``, every few days something would be found by chance. So that is divided by the
    judgements of a day: a release has a false finding on one day in a hundred at most.
    """

    def __init__(self, home: Path, references: References, *, window_s: float = 60.0) -> None:
        """Go on from what the file says, as far as its references are still here."""
        self._home, self._references = home, references
        self._every_s = min(EVERY_S, _WINDOWS * window_s)
        self._level = LEVEL * min(1.0, max(self._every_s, window_s) / _DAY_S)
        self._begun_s: float | None = None
        self._last: Report | None = None
        self._told: set[str] = set()
        self._tracks: dict[Key, _Track] = {}
        with self._telling(f"{home / DRIFT_FILE}: begun anew"):
            self._load()

    def add(self, report: Report) -> None:
        """Count a window in, and judge if it is time."""
        with self._telling("models cannot be judged"):
            if self._begun_s is None:
                self._begun_s = report.start_s
            for one in report.models:
                if one.reference:
                    self._count(one, report)
            self._last = replace(report, models=(), system={})
            if report.end_s - self._begun_s >= self._every_s:
                self._judge(self._last)

    def finish(self) -> None:
        """Judge what is open: the process ends."""
        with self._telling("models cannot be judged"):
            if self._last is not None:
                self._judge(self._last)

    def _load(self) -> None:
        try:
            known = read_drift(self._home) or ()
        except (OSError, MessageError) as error:
            LOG.warning("%s; drift is summed up anew", error)
            return
        for one in known[-MOST_KEYS:]:
            reference = self._references(one.model, one.release)
            if reference is not None and reference.digest == one.reference:
                self._tracks[one.model, one.release, one.reference] = _Track(one)

    @contextmanager
    def _telling(self, what: str) -> Iterator[None]:
        """Log what fails, once: it would come every few minutes."""
        try:
            yield
        except Exception:
            if what not in self._told:
                self._told.add(what)
                LOG.exception(what)

    # --- adding up

    def _count(self, window: ModelWindow, report: Report) -> None:
        key = (window.model, window.release, window.reference)
        if key not in self._tracks and not self._make_room(report.end_s):
            return
        track = self._tracks.setdefault(key, _Track(ModelDrift(*key)))
        track.last_s = report.end_s
        new = _Sum(report.start_s, report.end_s, _counts_of(window))
        track.open = new if track.open is None else _joined([track.open, new])

    def _make_room(self, now_s: float) -> bool:
        """Say whether one more release can be watched, instead of one that did nothing for an hour."""
        if len(self._tracks) < MOST_KEYS:
            return True
        idle = min(self._tracks, key=lambda key: self._tracks[key].last_s)
        if self._tracks[idle].last_s > now_s - SUMS * self._every_s:
            if "room" not in self._told:
                self._told.add("room")
                LOG.warning("more than %d releases record: drift of the others is not judged", MOST_KEYS)
            return False
        del self._tracks[idle]
        return True

    # --- judging

    def _judge(self, last: Report) -> None:
        self._begun_s = last.end_s
        is_new = False
        for key, track in self._tracks.items():
            opened, track.open = track.open, None
            if opened is None:
                continue
            is_new = True
            with self._telling(f"{key[0]} {key[1]}: its drift cannot be judged"):
                reference = self._references(key[0], key[1])
                if reference is not None and reference.digest == key[2]:
                    before = track.drift
                    track.drift = self._judged(reference, track, opened, last)
                    _tell_change(before, track.drift)
        if is_new:
            self._save()

    def _judged(self, reference: Reference, track: _Track, new: _Sum, last: Report) -> ModelDrift:
        is_dated = last.clock != "unsynced"
        begins = last.at - (last.end_s - new.begin_s) if is_dated else math.nan
        moved = replace(track.drift, sums=_moved(reference, track.drift.sums, new.window, begins))
        numbers = sum(len(one.counts) for one in reference.counted())
        track.sums.append(new)
        _retire(
            track.sums,
            last.end_s - SUMS * self._every_s,
            max(1, min(SUMS, _MOST_COUNTS // max(1, numbers))),
        )
        whole = _joined(track.sums)
        judged = judge(reference, whole.window)
        told = sum(bool(one.tests) for one in judged.verdicts)
        values = max((one.n for one in judged.verdicts), default=0)
        if not told:
            return moved if moved.judged else replace(moved, values=values)
        return replace(
            moved,
            judged=told,
            at=last.at if is_dated else None,
            seconds=round(whole.end_s - whole.begin_s, 1),
            values=values,
            level=self._level,
            findings=tuple(map(_finding, judged.findings(self._level))),
        )

    def _save(self) -> None:
        try:
            write_drift(self._home, tuple(track.drift for track in self._tracks.values()))
        except OSError as error:
            if "save" not in self._told:
                LOG.warning("%s: cannot be written: %s", self._home / DRIFT_FILE, error)
            self._told.add("save")
        else:
            self._told.discard("save")


def _counts_of(window: ModelWindow) -> ModelWindow:
    """Give what is judged of a window, without what makes several of one release."""
    return ModelWindow(
        window.model,
        window.release,
        calls=window.calls,
        classes=window.classes,
        features=window.features,
        rff_sum=window.rff_sum,
        rff_count=window.rff_count,
        reference=window.reference,
    )


def _joined(sums: Sequence[_Sum]) -> _Sum:
    (window,) = merge_models(one.window for one in sums)
    return _Sum(min(one.begin_s for one in sums), max(one.end_s for one in sums), window)


def _values(window: ModelWindow) -> int:
    """Give how many values the feature has that has most."""
    counted = [sum(window.classes.values()), window.rff_count, *map(sum, window.features.values())]
    return max(counted)


def _retire(sums: list[_Sum], oldest_s: float, most: int) -> None:
    """Take away what ended before ``oldest_s`` or is too much, as long as enough is left to be judged.

    Where it would not be, the two neighbours with the fewest values become one.
    """
    while len(sums) > 1 and (sums[0].end_s <= oldest_s or len(sums) > most):
        values = [_values(one.window) for one in sums]
        if sum(values[1:]) >= FEWEST:
            del sums[0]
        elif len(sums) > most:
            place = min(range(len(sums) - 1), key=lambda place: values[place] + values[place + 1])
            sums[place : place + 2] = [_joined(sums[place : place + 2])]
        else:
            return


def _moved(
    reference: Reference, states: Mapping[str, CusumState], window: ModelWindow, begins: float
) -> dict[str, CusumState]:
    """Give where the sums of all features stand after a window."""
    found = {}
    for one in reference.counted():
        state = states.get(one.name, CusumState())
        counts = window.features.get(one.name, ())
        if len(counts) == len(one.counts):
            state = cusum(one, state, counts, begins)
            state = replace(state, sums=tuple(min(HIGHEST, value) for value in state.sums))
        found[one.name] = state
    return found


def _finding(verdict: Verdict) -> Finding:
    strongest = verdict.strongest
    test, effect = ("", 0.0) if strongest is None else (strongest.test, strongest.effect)
    return Finding(verdict.name, verdict.n, verdict.q, test, effect)


def _tell_change(before: ModelDrift, now: ModelDrift) -> None:
    what = f"{now.model} {now.release}"
    old, new = ({one.name for one in drift.findings} for drift in (before, now))
    if new and not old:
        LOG.warning("%s: drifted: %s", what, ", ".join(one.name for one in now.findings))
    if old and not new:
        LOG.info("%s: drifts no more", what)
    for one in now.slow():
        if all((one.name, one.direction) != (known.name, known.direction) for known in before.slow()):
            LOG.warning("%s: drifts slowly: %s %s", what, one.name, one.direction)
