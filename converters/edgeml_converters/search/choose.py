"""The best variant per target, by a written rule.

A variant is a candidate if it was made, suits the target and holds every gate. Of the candidates that
lose at most the allowed points of accuracy (``max_drop``, 1.0 unless given) the best by the objective is
taken: the lowest median latency, the smallest file or the least memory. Latencies, and memory, within 5 % of
the lowest count as equal, and then accuracy decides, then size. What was not measured leaves it to the size.
What was compiled for the target's accelerator, and has at
least half of its operators there, goes before what runs on the CPU as long as nobody timed it there; what has
less of them there waits until it is timed. Where accuracy is unknown, a quantized variant must come
within ``SQNR_FLOOR_DB`` of the source's outputs, or float stays. Where nothing holds an allowance that nobody
asked for, the most accurate candidate is taken and the reason says so. ``edgeml.load`` takes on the device
what was chosen here, if its engine is there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from edgeml.engines import engine
from edgeml.figures import readable_size
from edgeml.words import FLOATS
from edgeml_converters.compare.outputs import SQNR_OF_EQUAL_DB
from edgeml_converters.search.objective import EQUAL_LATENCY, GOALS, Goal, goal, latency
from edgeml_converters.variants.gates import Gates, Objective
from edgeml_converters.variants.rows import Row, lacking

SQNR_FLOOR_DB: Final = 20.0
"""At 20 dB the outputs are off by a tenth of their own size (root mean square). Static int8 of sound small
networks gives 20 to 35 dB; what a quantizer ruined gives 0 to 10."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What was chosen for a target, and why."""

    target: str
    variant: str | None
    """``None``: nothing usable."""
    reason: str
    foreign_latency: bool = False
    """Latencies come from a machine of another class than the target."""
    gated: bool = False
    """Nothing was chosen because of a gate."""
    suiting: tuple[str, ...] = ()
    """Variants that may be chosen; a device without the chosen one's engine takes the fastest other."""


def choose(
    target: str,
    rows: Sequence[Row],
    gates: Gates,
    measured_on: str | None,
    objective: Objective = "latency",
) -> Choice:
    """Choose for one target.

    Args:
        target: the target's name.
        rows: all rows, whatever their status and target.
        gates: only their ``max_drop`` matters here; rows that break one have the status ``gate``.
        measured_on: name of the machine class that latencies come from; ``None`` if it is the target's.
        objective: what to have least of.
    """
    asked = [row for row in rows if target in row.targets]
    candidates = [row for row in asked if row.status == "ok"]
    foreign = measured_on is not None and any(row.measured.latency_ms for row in candidates)
    if not candidates:
        gated = [row for row in asked if row.status == "gate"]
        if gated:
            nearest = min(gated, key=gates.overshoot)
            others = "" if len(gated) == 1 else f" (of {len(gated)})"
            reason = f"no variant holds the gates; nearest is {nearest.name}{others}: {nearest.reason}"
            return Choice(target, None, reason, gated=True)
        why = _why(asked) or "it has none of the runtimes asked for"
        return Choice(target, None, f"no variant could be made: {why}")
    allowed = gates.allowed_drop
    within = [row for row in candidates if may_be_chosen(row, allowed)]
    if within:
        best = best_of(within, objective)
        reason = _reason(best, within, candidates, allowed, goal(objective, within), foreign=foreign)
    else:
        best = min(candidates, key=loss)
        within, reason = [best], _of_the_poor(best, candidates, allowed)
    if foreign:
        reason += f"; provisional: latency was measured on {measured_on}, not on {target}"
    reason += _needed_engine(best)
    return Choice(target, best.name, reason, foreign, suiting=tuple(row.name for row in within))


def may_be_chosen(row: Row, allowed: float) -> bool:
    """Say whether a variant is near enough to its source to be ranked by speed."""
    if row.drop_points is not None:
        return row.drop_points <= allowed
    return row.scheme in FLOATS or (row.measured.sqnr_db or 0.0) >= SQNR_FLOOR_DB


def lost(row: Row) -> tuple[float, float]:
    """Order by what is lost: points of accuracy, where they are unknown SQNR."""
    return row.drop_points or 0.0, -(row.measured.sqnr_db or 0.0)


def loss(row: Row) -> tuple[float, float, int]:
    """Order by what is lost, then by size."""
    return *lost(row), row.size_bytes or 0


def _of_the_poor(best: Row, candidates: Sequence[Row], allowed: float) -> str:
    if best.drop_points is None:
        known = best.measured.sqnr_db
        text = "its distance from the source is unknown" if known is None else f"SQNR {known:.1f} dB"
        return (
            f"{best.name}: {text}, the nearest to the source of {_count(candidates)}; accuracy was not "
            f"evaluated, and none reaches {SQNR_FLOOR_DB:g} dB: evaluate before use"
        )
    return (
        f"{best.name} loses {best.drop_points:.2f} points of accuracy, the least of "
        f"{_count(candidates)}; none stays within {_points(allowed)}"
    )


def _needed_engine(best: Row) -> str:
    """Name the extra that a device needs beyond what a plain installation has, LiteRT."""
    if best.runtime == "litert":
        return ""
    known = engine(best.runtime)
    return (
        f"; the device needs {known.install}" if known is not None else f"; the device needs {best.runtime}"
    )


def _why(rows: Sequence[Row]) -> str:
    return "; ".join(f"{', '.join(one.names)}: {one.reason}" for one in lacking(rows))


def best_of(rows: Sequence[Row], objective: Objective) -> Row:
    """Give the best by the rule above, of rows that lose no more than allowed."""
    untimed = [row for row in rows if row.accelerator is not None and row.measured.latency_ms is None]
    mostly = [row for row in untimed if 2 * row.mapping.get("mapped", 0) >= row.mapping.get("total", 0)]
    if mostly:
        return min(mostly, key=loss)
    rows = [row for row in rows if row not in untimed] or rows
    compared = goal(objective, rows)
    limit = compared.equal * compared.least(rows)
    return min(
        (row for row in rows if compared.cost(row) <= limit),
        key=lambda row: (*loss(row), compared.cost(row)),
    )


def _reason(
    best: Row,
    within: Sequence[Row],
    candidates: Sequence[Row],
    allowed: float,
    compared: Goal,
    *,
    foreign: bool,
) -> str:
    facts = []
    if best.accelerator is not None:
        facts.append(
            f"{best.mapping['mapped']} of {best.mapping['total']} operators on the {best.accelerator}"
        )
    if best.measured.latency_ms is not None:
        facts.append(f"{latency(best):.3g} ms (p50)")
    if best.drop_points is not None:
        facts.append(_drop(best.drop_points))
    elif best.measured.sqnr_db is not None and best.measured.sqnr_db < SQNR_OF_EQUAL_DB:
        facts.append(f"SQNR {best.measured.sqnr_db:.1f} dB")
    if best.size_bytes is not None:
        facts.append(readable_size(best.size_bytes))
    if compared is GOALS["memory"] and best.measured.peak_memory_bytes is not None:
        facts.append(f"{readable_size(best.measured.peak_memory_bytes)} of memory")
    text = f"{best.name}: {', '.join(facts)}"
    if len(candidates) == 1:
        return f"{text}; the only usable variant"
    text += f"; the {_how(best, within, compared)} of {_count(within)}"
    text += f" that lose at most {_points(allowed)}" if best.drop_points is not None else ""
    if best.drop_points is None:
        text += "; accuracy was not evaluated"
        poor = [row for row in candidates if row not in within]
        if poor:
            names = ", ".join(row.name for row in poor)
            text += f", so that {names} below {SQNR_FLOOR_DB:g} dB SQNR did not count"
    slower = _unpaid_int8(best, candidates, foreign=foreign)
    return f"{text}. {slower}" if slower else text


def _how(best: Row, within: Sequence[Row], compared: Goal) -> str:
    """Say by what the variant is the best."""
    if best.accelerator is not None and best.measured.latency_ms is None:
        return "one that uses the accelerator, not timed on it,"
    cost = compared.cost
    if cost(best) == compared.least(within):
        return compared.best
    if any(lost(row) > lost(best) and cost(row) < cost(best) for row in within):
        return f"most accurate of those {compared.among_equals}"
    return f"smallest of those {compared.among_equals}"


def _unpaid_int8(best: Row, candidates: Sequence[Row], *, foreign: bool) -> str | None:
    """Say so when quantization did not pay; of latency only where it was measured for the target."""
    if best.scheme != "float32" or best.measured.latency_ms is None:
        return None
    rivals = [row for row in candidates if row.scheme.startswith("int") and row.measured.latency_ms]
    if not rivals:
        return None
    rival = min(rivals, key=latency)
    if latency(rival) > EQUAL_LATENCY * latency(best):
        if foreign:
            return None
        return (
            f"int8 is slower here: float32 kept ({latency(best):.3g} ms against {latency(rival):.3g} ms "
            f"for {rival.name})"
        )
    if latency(best) > EQUAL_LATENCY * latency(rival) and rival.drop_points is not None:
        return (
            f"{rival.name} is faster ({latency(rival):.3g} ms) and loses too much: {_drop(rival.drop_points)}"
        )
    return None


def _drop(points: float) -> str:
    if abs(points) < 0.005:  # noqa: PLR2004 - shown with two digits
        return "no accuracy lost"
    return f"{abs(points):.2f} points {'below' if points > 0 else 'above'} float"


def _points(number: float) -> str:
    return f"{number:g} point{'' if number == 1 else 's'}"


def _count(rows: Sequence[Row]) -> str:
    return "one variant" if len(rows) == 1 else f"{len(rows)} variants"
