"""What was read of the rings of one model, made a window of."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from edgeml.telemetry.binning import Calls, between, binned, top
from edgeml.telemetry.exponential import ExponentialHistogram
from edgeml.telemetry.fourier import fourier_sums
from edgeml.telemetry.reference import CONFIDENCE, Reference
from edgeml.telemetry.report import MOST_CLASSES, MOST_ERRORS, ModelWindow
from edgeml.telemetry.ring import MOST_ENTRIES, RingInfo, vector
from edgeml.telemetry.ring_file import RingFile
from edgeml.telemetry.samples import RawInputs, Recorded, Rows, choose

MOST_ROWS: Final = 256
"""Rows of features whose random Fourier features are summed in one go, 40 µs each; chosen at random."""

Key = tuple[str, int, str, str]
"""Model, release, variant, runtime."""
_NANO: Final = 1e9


class Gathered:
    """Columns of one model, of all processes."""

    __slots__ = ("_calls", "_classes", "_errors", "_features", "_processes", "killed")

    def __init__(self) -> None:
        self._calls: list[Recorded] = []
        self._features: dict[str, tuple[tuple[str, ...], Rows]] = {}
        """By ring of the calls: names and rows."""
        self._errors: Counter[str] = Counter()
        self._classes: Counter[str] = Counter()
        self._processes: set[int] = set()
        self.killed = 0

    def add_calls(self, file: RingFile, entries: bytes) -> None:
        """Add entries of a ring of calls."""
        is_killed = not file.is_owned and not file.is_closed
        self.killed += is_killed
        if entries or is_killed:
            self._processes.add(file.info.pid)
        if not entries:
            return
        calls = Calls(entries)
        texts: dict[int, str] = {0: ""}
        for codes, counts in ((calls.labels(), self._classes), (calls.errors(), self._errors)):
            for code, count in Counter(codes).items():
                if code:
                    text = texts[code] = file.text(code)
                    counts[text] += count
        self._calls.append(Recorded(file.info, calls, texts))

    def add_features(self, info: RingInfo, entries: bytes) -> None:
        """Add entries of a ring of feature vectors."""
        unpacked = vector(len(info.features)).iter_unpack(entries)
        rows = {int(call): tuple(values) for call, *values, _ in unpacked if 0 < call <= MOST_ENTRIES}
        if rows:
            self._features[info.of] = info.features, rows

    def is_empty(self) -> bool:
        return not (self._calls or self._features or self.killed)

    def window(
        self, key: Key, reference: Reference | None, raw: RawInputs, dice: random.Random
    ) -> ModelWindow:
        """Bin all that was added."""
        model, release, variant, runtime = key
        confidences = [code - 1 for one in self._calls for code in one.calls.confidences() if code]
        rows = {ring: found for ring, (_, found) in self._features.items()}
        features, rff_sum, rff_count = self._against(reference, confidences, dice)
        return ModelWindow(
            model,
            release,
            variant,
            runtime,
            calls=sum(one.calls.count for one in self._calls),
            errors=top(self._errors, MOST_ERRORS),
            latency=self._latency(),
            classes=top(self._classes, MOST_CLASSES),
            confidence=_of_nano(confidences) if confidences else None,
            features=features,
            rff_sum=rff_sum,
            rff_count=rff_count,
            reference="" if reference is None else reference.digest,
            samples=choose(self._calls, rows, raw, dice),
            processes=max(1, len(self._processes)),
            killed=self.killed,
        )

    def _latency(self) -> dict[str, ExponentialHistogram]:
        stages: dict[str, list[float]] = {}
        for one in self._calls:
            for stage, seconds in (("total", one.calls.latencies()), *one.calls.stages().items()):
                stages.setdefault(stage, []).extend(seconds)
        return {stage: binned(seconds) for stage, seconds in stages.items()}

    def _against(
        self, reference: Reference | None, confidences: Sequence[int], dice: random.Random
    ) -> tuple[dict[str, tuple[int, ...]], tuple[float, ...], int]:
        """Count what the reference has edges for; give the sums of random Fourier features too."""
        if reference is None:
            return {}, (), 0
        rows = self._rows(tuple(one.name for one in reference.features))
        found = {
            one.name: between(one.edges, column)
            for one, column in zip(reference.features, zip(*rows, strict=True), strict=False)
        }
        if reference.confidence is not None and confidences:
            found[CONFIDENCE] = between(reference.confidence.edges, [code / _NANO for code in confidences])
        if reference.joint is None:
            return found, (), 0
        joint = self._rows(reference.joint.features)
        sums, count = fourier_sums(reference, dice.sample(joint, min(MOST_ROWS, len(joint))))
        return found, sums if count else (), count

    def _rows(self, names: Sequence[str]) -> list[tuple[float, ...]]:
        """Give the rows that have all of these features, in this order."""
        found: list[tuple[float, ...]] = []
        for known, rows in self._features.values():
            if not names or not set(names) <= set(known):
                continue
            if tuple(names) == known:
                found.extend(rows.values())
            else:
                places = [known.index(name) for name in names]
                found.extend(tuple(row[place] for place in places) for row in rows.values())
        return found


def _of_nano(values: Sequence[int]) -> ExponentialHistogram:
    """Count confidences in 1e-9, whose sum is exact."""
    return replace(binned([value / _NANO for value in values]), sum_nano=sum(values))
