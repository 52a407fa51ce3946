"""Adjacent reports as one: every count is kept, only their times grow coarser."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, replace
from itertools import zip_longest
from typing import Final

from edgeml.telemetry.exponential import merge
from edgeml.telemetry.report import (
    MOST_CLASSES,
    MOST_ERRORS,
    MOST_FEATURES,
    MOST_SAMPLES,
    OTHER,
    Lost,
    ModelWindow,
    Report,
    Sample,
    Summary,
)

SAMPLES_OF_MERGED: Final = 5
"""Of a model in a merged window: 65 bytes each, while all its counts are 1.8 kB."""
_MOST_RAW_BYTES: Final = 32 * 1024
"""Of raw inputs in one merged window of a model; a batch has 256 KiB."""


def can_merge(one: Report, other: Report, span_s: float) -> bool:
    """Say whether two adjacent reports may become one that is no longer than ``span_s``."""
    fits = 0 <= other.end_s - one.start_s <= span_s * 1.01  # a loop's minute is a little more than one
    return one.boot_id == other.boot_id and one.clock == other.clock and fits


def merge_reports(reports: Sequence[Report]) -> Report:
    """Add up reports of one boot, in their order; a single one is given as it is.

    Times reach from the first to the last, numbers from ``begins`` of the first to ``seq`` of the last.
    """
    first, last = reports[0], reports[-1]
    if first is last:
        return first
    lost = add_lost(one.lost for one in reports)
    fresh = sum(one.windows == 1 for one in reports)
    energies = [one.energy_joules for one in reports if one.energy_joules is not None]
    return replace(
        last,
        prev=first.prev,
        first=first.begins,
        start_s=first.start_s,
        windows=sum(one.windows for one in reports),
        models=merge_models((model for one in reports for model in one.models), SAMPLES_OF_MERGED),
        system=_merge_system([one.system for one in reports]),
        energy_joules=math.fsum(energies) if energies else None,
        lost=replace(lost, merged=lost.merged + fresh),
    )


def add_lost(several: Iterable[Lost]) -> Lost:
    """Add counters up."""
    kept = list(several)
    return Lost(**{one.name: sum(getattr(lost, one.name) for lost in kept) for one in fields(Lost)})


def add_counts(several: Iterable[Mapping[str, int]], most: int) -> dict[str, int]:
    """Add counts by name; beyond ``most`` names the rarest go to ``other``, so that the sum holds."""
    found: dict[str, int] = {}
    for counts in several:
        for name, count in counts.items():
            found[name] = found.get(name, 0) + count
    if len(found) <= most:
        return found
    rest = found.pop(OTHER, 0)
    ranked = sorted(found, key=lambda name: (-found[name], name))
    kept = {name: found[name] for name in ranked[: most - 1]}
    kept[OTHER] = rest + sum(found[name] for name in ranked[most - 1 :])
    return kept


def without_inputs(report: Report) -> Report:
    """Give a report whose samples have no raw inputs."""
    return _with_samples(report, lambda samples: tuple(replace(one, raw=None) for one in samples))


def without_samples(report: Report) -> Report:
    """Give a report that has its counts only."""
    return _with_samples(report, lambda _samples: ())


def _with_samples(report: Report, change: Callable[[tuple[Sample, ...]], tuple[Sample, ...]]) -> Report:
    return replace(report, models=tuple(replace(one, samples=change(one.samples)) for one in report.models))


def merge_models(models: Iterable[ModelWindow], most_samples: int = MOST_SAMPLES) -> tuple[ModelWindow, ...]:
    """Add up what the same release did, wherever it stands among ``models``."""
    groups: dict[tuple[str, int, str, str, str], list[ModelWindow]] = {}
    for one in models:
        key = (one.model, one.release, one.variant, one.runtime, one.reference)
        groups.setdefault(key, []).append(one)
    return tuple(_merge_windows(group, most_samples) for group in groups.values())


def _merge_windows(group: Sequence[ModelWindow], most_samples: int) -> ModelWindow:
    if len(group) == 1:
        return group[0]
    stages = dict.fromkeys(stage for one in group for stage in one.latency)
    confidences = [one.confidence for one in group if one.confidence is not None]
    return replace(
        group[-1],
        calls=sum(one.calls for one in group),
        errors=add_counts((one.errors for one in group), MOST_ERRORS),
        latency={
            stage: merge(one.latency[stage] for one in group if stage in one.latency) for stage in stages
        },
        classes=add_counts((one.classes for one in group), MOST_CLASSES),
        confidence=merge(confidences) if confidences else None,
        features=_add_features([one.features for one in group]),
        rff_sum=tuple(
            math.fsum(values) for values in zip_longest(*(one.rff_sum for one in group), fillvalue=0.0)
        ),
        rff_count=sum(one.rff_count for one in group),
        samples=_thin([sample for one in group for sample in one.samples], most_samples),
        processes=max(one.processes for one in group),
        killed=sum(one.killed for one in group),
    )


def _add_features(several: Sequence[Mapping[str, tuple[int, ...]]]) -> dict[str, tuple[int, ...]]:
    names = list(dict.fromkeys(name for one in several for name in one))[:MOST_FEATURES]
    return {
        name: tuple(
            sum(counts) for counts in zip_longest(*(one.get(name, ()) for one in several), fillvalue=0)
        )
        for name in names
    }


def _thin(samples: Sequence[Sample], most: int) -> tuple[Sample, ...]:
    """Keep as many samples as asked for: of each kind its share, spread evenly over the time."""
    if len(samples) > most:
        kinds = [[one for one in samples if one.why == why] for why in ("error", "unsure", "random")]
        kinds.sort(key=len)
        kept: list[Sample] = []
        for left, kind in zip((3, 2, 1), kinds, strict=True):
            kept += _spread(kind, (most - len(kept)) // left)
        samples = sorted(kept, key=lambda one: one.at)
    room = _MOST_RAW_BYTES
    fitting = []
    for one in samples:
        room -= len(one.raw or b"")
        fitting.append(one if room >= 0 else replace(one, raw=None))
    return tuple(fitting)


def _spread(samples: Sequence[Sample], most: int) -> Sequence[Sample]:
    if len(samples) <= most:
        return samples
    return [samples[place * len(samples) // most] for place in range(most)]


def _merge_system(several: Sequence[Mapping[str, Summary]]) -> dict[str, Summary]:
    names = dict.fromkeys(name for one in several for name in one)
    return {name: merge_summaries([one[name] for one in several if name in one]) for name in names}


def merge_summaries(several: Sequence[Summary]) -> Summary:
    """Add summaries of one quantity up, means weighted by readings."""
    count = sum(one.count for one in several)
    return Summary(
        min(one.min for one in several),
        math.fsum(one.mean * one.count for one in several) / max(count, 1),
        max(one.max for one in several),
        count,
    )
