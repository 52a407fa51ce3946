"""What the Edge TPU compiler would make of a model after the rewrites that it needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgeml.errors import EngineMissingError, ModelFileError
from edgeml_converters.coral.check import Check
from edgeml_converters.coral.graph import graph_of
from edgeml_converters.coral.placement import place
from edgeml_converters.coral.rewrites.rewriting import Change, rewritten


@dataclass(frozen=True, slots=True)
class Prediction:
    """A model as it would be mapped; nothing was run."""

    changes: tuple[Change, ...]
    mapped: int
    total: int

    def to_json(self) -> dict[str, Any]:
        """Give what ``edgeml coral check --json`` prints of it."""
        return {
            "rewrites": [one.to_json() for one in self.changes],
            "mapped": self.mapped,
            "total": self.total,
        }


def predict(check: Check) -> Prediction | None:
    """Say what rewrites would gain; ``None``: nothing, or LiteRT, whose tools they need, is not installed."""
    if check.placements.mapped == check.total:
        return None
    try:
        made = rewritten(check.path, "int8", checked=False)
        placements = place(graph_of(check.path, made.content))
    except (EngineMissingError, ModelFileError):
        return None
    left = len(placements.operators) - placements.mapped
    if placements.mapped <= check.placements.mapped and left >= check.total - check.placements.mapped:
        return None
    return Prediction(made.changes, placements.mapped, len(placements.operators))
