"""Drift as pages show it: findings, and what was seen drawn against the reference."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from edgeml.telemetry.reference import Reference
from edgeml_devices.server.pages.charts import Chart, distribution
from edgeml_devices.server.services import Services
from edgeml_devices.server.telemetry.drift import By, DriftFinding
from edgeml_devices.server.telemetry.drifting import find_drift
from edgeml_devices.server.telemetry.store import Selection

_DRAWN: Final = 6
"""Features that drifted and are drawn; of others no more than fill up two."""
_DRAWN_WHERE_ALL_IS_WELL: Final = 2


@dataclass(frozen=True, slots=True)
class Shown:
    """One finding."""

    finding: DriftFinding
    charts: tuple[Chart, ...]
    """Empty: it is not drawn."""


@dataclass(frozen=True, slots=True)
class DriftView:
    """All findings of a question, the surest first."""

    findings: tuple[Shown, ...]
    unknown: int
    """Windows that counted for a reference which no release has."""
    selection: Selection
    devices: int
    """Of which devices are read."""
    of: int

    @property
    def drifted(self) -> int:
        """How many features drifted."""
        return sum(one.finding.drifted for one in self.findings)

    @property
    def seconds(self) -> float:
        """How far back it looks."""
        return self.selection.until - self.selection.since


async def drift_view(services: Services, selection: Selection, by: By, of: int = 1) -> DriftView:
    """Judge what lies in a selection of few devices."""
    found, unknown = await find_drift(services.telemetry, services.references, selection, by)
    references = await services.references.load()
    drawn = await asyncio.to_thread(_draw, found, references)
    return DriftView(tuple(drawn), unknown, selection, len(selection.devices or ()), of)


def drifted_by_release(view: DriftView) -> Mapping[tuple[str, int | None], int]:
    """Count features that drifted, for each release that was judged."""
    counts: dict[tuple[str, int | None], int] = {}
    for one in view.findings:
        group = one.finding.group
        key = group.model, group.release
        counts[key] = counts.get(key, 0) + one.finding.drifted
    return counts


def _draw(found: Sequence[DriftFinding], references: Mapping[str, Reference]) -> list[Shown]:
    shown, drawn = [], 0
    for one in found:
        charts: tuple[Chart, ...] = ()
        reference = references.get(one.group.reference)
        if drawn < (_DRAWN if one.drifted else _DRAWN_WHERE_ALL_IS_WELL) and reference is not None:
            charts = _distribution(one, reference)
            drawn += bool(charts)
        shown.append(Shown(one, charts))
    return shown


def _distribution(one: DriftFinding, reference: Reference) -> tuple[Chart, ...]:
    if one.classes:
        return distribution(one.counts, one.expected, one.classes)
    features = {feature.name: feature for feature in reference.counted()}
    feature = features.get(one.feature)
    if feature is None:
        return ()
    return distribution(one.counts, one.expected, [f"{edge:.3g}" for edge in feature.edges])
