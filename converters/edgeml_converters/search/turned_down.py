"""Why a variant was not chosen: the rule of ``choose``, told from the side of the one that was left."""

from __future__ import annotations

from collections.abc import Sequence

from edgeml.figures import readable_size
from edgeml_converters.search.choose import SQNR_FLOOR_DB, Choice, loss, lost, may_be_chosen
from edgeml_converters.search.objective import goal
from edgeml_converters.variants.gates import Gates, Objective
from edgeml_converters.variants.rows import Row


def holds(row: Row, gates: Gates) -> bool:
    """Say whether a variant was made and loses no more than allowed."""
    return row.status == "ok" and lost_too_much(row, gates) is None


def lost_too_much(row: Row, gates: Gates) -> str | None:
    """Say by how much a variant is too far from its source to be chosen; ``None``: it is near enough."""
    broken = gates.accuracy_broken_by(row)
    if broken is not None or may_be_chosen(row, gates.allowed_drop):
        return broken
    if row.drop_points is not None:
        return f"accuracy drop {row.drop_points:.2f} points, allowed {gates.allowed_drop:g}"
    known = row.measured.sqnr_db
    if known is None:
        return "its distance from the source is unknown"
    return f"SQNR {known:.1f} dB, less than {SQNR_FLOOR_DB:g}, and accuracy was not evaluated"


def why_not(row: Row, choice: Choice, rows: Sequence[Row], gates: Gates, objective: Objective) -> str:
    """Say why a usable variant was not chosen for a target that it suits.

    Args:
        row: the variant.
        choice: what was chosen, another one.
        rows: all rows.
        gates: what the conversion had to hold.
        objective: what the choice has least of.
    """
    best = next(one for one in rows if one.name == choice.variant)
    if row.name not in choice.suiting:
        return lost_too_much(row, gates) or f"loses more than {best.name}"
    if row.accelerator is not None and row.measured.latency_ms is None and best.accelerator is None:
        return f"less than half of it runs on the {row.accelerator}, and nobody timed it there"
    if best.accelerator is not None and best.measured.latency_ms is None and row.accelerator is None:
        return f"runs on the CPU; {best.name} uses the {best.accelerator}"
    within = [one for one in rows if one.name in choice.suiting]
    compared = goal(objective, within)
    own, other = compared.cost(row), compared.cost(best)
    if own > compared.equal * compared.least(within):
        return compared.worse(best.name, own, other)
    return f"{compared.as_good} {best.name}, and {_loses(row, best)}"


def _loses(row: Row, best: Row) -> str:
    """Say what decided between two that are equal by the objective."""
    if lost(row)[0] > lost(best)[0]:
        return f"loses more: {lost(row)[0]:.2f} against {lost(best)[0]:.2f} points"
    if lost(row) > lost(best):
        return f"further from the source: SQNR {-lost(row)[1]:.1f} against {-lost(best)[1]:.1f} dB"
    if loss(row) > loss(best):
        return f"larger: {readable_size(row.size_bytes)} against {readable_size(best.size_bytes)}"
    return "no better in anything"
