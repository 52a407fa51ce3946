"""Times edgeml's choice and the stock quantizers' artifacts side by side, for one model on one runtime."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Final

import numpy as np

from edgeml import plugins
from tests.benchmarks.stock_making import FLOAT, MAX_DROP, OURS, Artifact, Making, job
from tests.benchmarks.stock_quantizers import QUANTIZERS

RUNTIMES: Final = tuple(QUANTIZERS)
PROCESSES, ROUNDS = 3, 10
"""Fresh processes that time all artifacts, and the rounds of each."""
AGAIN: Final = "edgeml, again"
"""edgeml's file in a second session: how far apart two equal files are told."""


@dataclass(frozen=True)
class Entry:
    """One artifact."""

    label: str
    accuracy: float | None = None
    """Percent."""
    sqnr_db: float | None = None
    latency_us: float | None = None
    ratio: float | None = None
    """Its latency divided by that of edgeml's choice, the median over rounds."""
    size_bytes: int | None = None
    seconds: float | None = None
    """That it took to make."""
    error: str = ""


@dataclass(frozen=True)
class Comparison:
    """All artifacts of one model for one runtime."""

    model: str
    runtime: str
    chosen: str
    entries: tuple[Entry, ...] = field(default=())

    def entry(self, label: str) -> Entry:
        """Give the entry of this label."""
        return next(one for one in self.entries if one.label == label)

    @property
    def stock(self) -> tuple[Entry, ...]:
        """The entries of stock tools that gave something."""
        return tuple(one for one in self.entries if one.label in QUANTIZERS[self.runtime] and not one.error)

    def drop(self, entry: Entry) -> float:
        """Points of accuracy that an entry loses against float in this runtime."""
        base = self.entry(FLOAT).accuracy
        assert base is not None
        assert entry.accuracy is not None
        return round(base - entry.accuracy, 6)

    @property
    def best_stock(self) -> Entry | None:
        """The fastest stock result that holds the gate."""
        held = [one for one in self.stock if self.drop(one) <= MAX_DROP]
        return min(held, key=lambda one: one.ratio or 0.0, default=None)


def compare(making: Making) -> Comparison:
    """Make and judge what is not there yet, and time what was not timed."""
    made = making.made()
    kept = making.room / "times.json"
    if not kept.exists():
        usable = {label: one for label, one in made.items() if not one.error}
        kept.write_text(json.dumps(_times(making, {**usable, AGAIN: made[OURS]})))
    times = json.loads(kept.read_text())
    entries = [_entry(label, one, times) for label, one in made.items()]
    entries.append(_entry(AGAIN, made[OURS], times))
    options = map("=".join, _unusual(making.runtime, made[OURS].options).items())
    return Comparison(making.name, making.runtime, " ".join([made[OURS].chosen, *options]), tuple(entries))


def _entry(label: str, one: Artifact, times: Mapping[str, list[float]]) -> Entry:
    if one.error:
        return Entry(label, seconds=one.seconds, error=one.error)
    latency, ratio = median(times[label]), median(np.divide(times[label], times[OURS]).tolist())
    return Entry(label, one.accuracy, one.sqnr_db, latency, ratio, one.size_bytes, one.seconds)


def _unusual(runtime: str, options: Mapping[str, str]) -> dict[str, str]:
    """Give the engine options that are not the driver's defaults."""
    driver = plugins.runtime(runtime)
    usual = driver.options({})
    return {key: value for key, value in options.items() if driver.options({key: value}) != usual}


def _times(making: Making, artifacts: Mapping[str, Artifact]) -> dict[str, list[float]]:
    """Give microseconds of every round of every process, by artifact."""
    found: dict[str, list[float]] = {label: [] for label in artifacts}
    labels = list(artifacts)
    for place in range(PROCESSES):
        order = [*labels[place:], *labels[:place]]
        files = {label: (artifacts[label].path, artifacts[label].options) for label in order}
        given = {"runtime": making.runtime, "artifacts": files, "rounds": ROUNDS}
        for label, times in job("latency", {**given, "inputs": str(making.data / "inputs.npy")}).items():
            found[label] += times
    return found
