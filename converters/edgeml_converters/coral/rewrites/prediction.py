"""What the Edge TPU compiler would make of a model after the rewrites and the cut that it needs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeml.errors import ConversionError, EngineMissingError, ModelFileError
from edgeml_converters.coral.check import Check
from edgeml_converters.coral.cut import Cut, cut_unchecked, stops
from edgeml_converters.coral.graph import graph_of
from edgeml_converters.coral.placement import place
from edgeml_converters.coral.rewrites.rewriting import Change, rewritten


@dataclass(frozen=True, slots=True)
class Prediction:
    """A model as it would be mapped; nothing was run."""

    changes: tuple[Change, ...]
    mapped: int
    total: int
    cut: Cut | None
    """Of the rewritten model, where the compiler would stop at that, too."""

    def to_json(self) -> dict[str, Any]:
        """Give what ``edgeml coral check --json`` prints of it."""
        rewrites = {
            "rewrites": [one.to_json() for one in self.changes],
            "mapped": self.mapped,
            "total": self.total,
        }
        return {
            "rewritten": rewrites if self.changes else None,
            "cut": self.cut.to_json() if self.cut is not None else None,
        }


def predict(check: Check) -> Prediction | None:
    """Say what rewrites and a cut would gain; ``None``: nothing, or LiteRT, which they need, fails."""
    try:
        made = rewritten(check.path, "int8", checked=False)
        graph = graph_of(check.path, made.content)
        found = _cut(check.path, made.content) if stops(graph) else None
    except (ConversionError, EngineMissingError, ModelFileError):
        return None
    placements = place(graph)
    left = len(placements.operators) - placements.mapped
    gains = placements.mapped > check.placements.mapped or left < check.total - check.placements.mapped
    if not gains and found is None:
        return None
    return Prediction(made.changes, placements.mapped, len(placements.operators), found)


def _cut(path: Path, content: bytes) -> Cut | None:
    try:
        return cut_unchecked(path, content)
    except ConversionError:
        return None
