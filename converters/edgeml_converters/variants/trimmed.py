"""Rows without dead channels: for each row of a search another one, where the model has such channels.

What is dead changes nothing in float, so nothing is lost by a variant without it; whether it is smaller and
quicker on a runtime, and what int8 makes of it, is measured beside the variant that has everything.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from edgeml.converter import QuantizerSettings
from edgeml.errors import EdgemlError
from edgeml.findings import Finding
from edgeml_converters.channels.removal import Removal
from edgeml_converters.channels.step import STEPS, dead_channels
from edgeml_converters.graph import Plan
from edgeml_converters.variants.artifact import Artifact
from edgeml_converters.variants.request import Request
from edgeml_converters.variants.rows import Row
from edgeml_converters.variants.step_runner import Executor


def with_trimmed(
    request: Request, rows: Sequence[Row], plans: Mapping[str, Plan], executor: Executor
) -> tuple[tuple[Row, ...], dict[str, Plan]]:
    """Put a row without dead channels behind each row of a search whose path leads over enough of them.

    Where nothing is searched, a finding tells of them.

    Returns:
        The rows, and the plans with those that were added.
    """
    wanted = [row for row in rows if row.name in plans]
    wanted.sort(key=lambda row: executor.was_probed(plans[row.name].steps))
    found: dict[str, Removal] = {}
    seen: dict[str, Removal | None] = {}
    for row in wanted:
        model = _model(plans[row.name], executor, searches=request.searches)
        if model is None:
            continue
        if model.key not in seen:
            seen[model.key] = dead_channels(model.path, model.state.format)
        removal = seen[model.key]
        found |= {row.name: removal} if removal is not None and removal.pays else {}
    if found and not request.searches:
        executor.findings.append(_left_in(next(iter(found.values())), request.source.name))
        return tuple(rows), dict(plans)
    every: list[Row] = []
    for row in rows:
        every += [row, trimmed_row(row)] if row.name in found else [row]
    return tuple(every), all_plans(wanted, plans) if found else dict(plans)


def all_plans(rows: Iterable[Row], plans: Mapping[str, Plan]) -> dict[str, Plan]:
    """Give the plans, and those of the same rows without dead channels."""
    every = dict(plans)
    for row in rows:
        place = _place(plans[row.name]) if row.name in plans else None
        if place is not None:
            every[trimmed_row(row).name] = _with_step(plans[row.name], place)
    return every


def trimmed_row(row: Row) -> Row:
    """Give the same row without dead channels, before it is made."""
    return row.by(replace(row.settings, trimmed=True))


def _place(plan: Plan) -> int | None:
    """Say before which step of a path the model first has a format whose channels can be taken out."""
    states = (plan.source, *(step.target for step in plan.steps))
    places = (place for place, one in enumerate(states) if one.format in STEPS and one.scheme == "float32")
    return next(places, None)


def _with_step(plan: Plan, place: int) -> Plan:
    before, behind = plan.steps[:place], plan.steps[place:]
    state = before[-1].target if before else plan.source
    return replace(plan, steps=(*before, STEPS[state.format], *behind))


def _model(plan: Plan, executor: Executor, *, searches: bool) -> Artifact | None:
    """Give what dead channels are looked for in; only a search makes it where it is not the source."""
    place = _place(plan)
    if place is None or (place and not searches):
        return None
    with suppress(EdgemlError):  # told by the rows themselves
        return executor.make(plan.steps[:place], QuantizerSettings(), None)
    return None


def _left_in(removal: Removal, model: str) -> Finding:
    return Finding(
        "dead-channels",
        "info",
        model,
        f"{removal.summary} are the same for every input, or nothing reads them",
        "--scheme auto also makes variants without them, which give the same and are smaller",
    )
