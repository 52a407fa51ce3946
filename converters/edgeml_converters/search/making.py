"""Makes the rows that were planned, one after the other, then mends and prunes those of static int8."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from edgeml.converter import QuantizerSettings
from edgeml_converters.graph import Plan
from edgeml_converters.search.control import Control
from edgeml_converters.search.pruning import Pruning, with_comparison
from edgeml_converters.search.trials import Budget
from edgeml_converters.search.turned_down import holds
from edgeml_converters.variants.make import Maker
from edgeml_converters.variants.rows import INTERRUPTED, Made, Row
from edgeml_converters.variants.trimmed import trimmed_row


def in_turn(
    rows: Sequence[Row],
    plans: Mapping[str, Plan],
    maker: Maker,
    budget: Budget,
    *,
    counted: str = "variant",
) -> Made:
    """Make each row that was planned, one after the other; progress counts them as what is ``counted``.

    Raises:
        KeyboardInterrupt: it was interrupted, and nothing usable was made or nothing is searched.
    """
    wanted = [row for row in rows if row.status == "ok"]
    last = [row for row in wanted if maker.executor.was_probed(plans[row.name].steps)]
    first = [row for row in wanted if row not in last]
    made: dict[str, Row] = {}
    added: list[Row] = []
    interrupted = False
    try:
        for place, row in enumerate((*first, *last), 1):
            maker.executor.stage = f"{counted} {place}/{len(wanted)}, {row.name}: "
            made[row.name] = maker.make(row, plans[row.name].steps)
        for name, row in tuple(made.items()):
            if not row.settings.sparsity and _has_trimmed(row, made):
                continue
            controlled = _controlled(row, plans[name], maker, budget)
            added += [] if controlled is None else [controlled]
            kept = controlled or _told_of_time(row, maker, budget)
            told, *pruned = _pruned(kept, plans[name], maker, budget)
            if controlled is None:
                made[name] = told
            else:
                added[-1] = told
            added += pruned
    except KeyboardInterrupt:
        if not maker.request.searches or all(row.status != "ok" for row in made.values()):
            raise
        interrupted = True
    maker.executor.stage = ""
    left = {row.name: row.without("unavailable", INTERRUPTED) for row in wanted}
    found = (made.get(row.name) or left.get(row.name, row) for row in rows)
    return Made((*found, *added), interrupted)


def _has_trimmed(row: Row, made: Mapping[str, Row]) -> bool:
    """Say whether the same stands there without dead channels: what mends or prunes starts from that."""
    twin = made.get(trimmed_row(row).name) if not row.settings.trimmed else None
    return twin is not None and twin.status == "ok"


def _controlled(row: Row, plan: Plan, maker: Maker, budget: Budget) -> Row | None:
    """Mend a static int8 variant that loses more than allowed; a search looks for better than what holds."""
    if not _is_controlled(row, maker):
        return None
    control = Control(row, plan.steps, maker, budget)
    if not holds(row, maker.request.gates):
        return control.run()
    loses = row.drop_points is not None and row.drop_points > 0.0
    return control.closer() if maker.request.searches and loses else None


def _told_of_time(row: Row, maker: Maker, budget: Budget) -> Row:
    """Say of a static int8 variant that loses too much that no time was left to mend it."""
    if not budget.spent or not _is_controlled(row, maker) or holds(row, maker.request.gates):
        return row
    return row.with_findings(budget.finding(row.name, "what was not tried might lose less"))


def _is_controlled(row: Row, maker: Maker) -> bool:
    if not maker.request.accuracy_control or row.scheme != "int8_static" or row.edge_tpu:
        return False
    return row.status in {"ok", "failed"} and not row.settings.sparsity


def _pruned(row: Row, plan: Plan, maker: Maker, budget: Budget) -> tuple[Row, ...]:
    """Give the row, and a pruned one behind it where such are looked for."""
    if maker.request.prunes:
        return Pruning(row, plan.steps, maker, budget).run()
    if not row.settings.sparsity:
        return (row,)
    plain = replace(row.settings, sparsity=0.0)
    return (with_comparison(row, _by_settings(maker, row, plain)),)


def _by_settings(maker: Maker, row: Row, settings: QuantizerSettings) -> Row | None:
    """Find what was tried in the same way but for the settings."""
    wanted = replace(row, settings=settings).way
    return next((one for one in maker.tried if one.way == wanted), None)
