"""The best variant per target, by a written rule.

A variant is a candidate if it was made, suits the target and holds every gate. Of the candidates that
lose at most the allowed points of accuracy (``max_drop``, 1.0 unless given) the one with the lowest median
latency is taken, as ``edgeml.load`` does on the device. Without measured latencies the smallest file wins.
Where nothing holds an allowance that nobody asked for, the most accurate candidate is taken and the reason
says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from edgeml_converters.compare.outputs import SQNR_OF_EQUAL_DB
from edgeml_converters.variants.rows import Row, kilobytes, lacking

DEFAULT_MAX_DROP: Final = 1.0
"""Points of accuracy that a faster variant may cost when no ``max_drop`` is given."""


@dataclass(frozen=True, slots=True)
class Gates:
    """What a variant must hold; ``None``: anything goes."""

    max_drop: float | None = None
    max_latency_ms: float | None = None
    max_size_bytes: int | None = None

    def broken_by(self, row: Row) -> str | None:
        """Say which gate the row breaks, if any."""
        if self.max_drop is not None and row.drop_points is not None and row.drop_points > self.max_drop:
            return f"accuracy drop {row.drop_points:.2f} points, allowed {self.max_drop:g}"
        latency = row.measured.latency_ms
        if self.max_latency_ms is not None and latency is not None and latency.p50 > self.max_latency_ms:
            return f"latency {latency.p50:.3g} ms (p50), allowed {self.max_latency_ms:g} ms"
        size = row.size_bytes
        if self.max_size_bytes is not None and size is not None and size > self.max_size_bytes:
            return f"size {size:,} bytes, allowed {self.max_size_bytes:,} bytes"
        return None


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
    """Variants within the allowed drop; the device takes the fastest of them that its engines can run."""


def choose(target: str, rows: Sequence[Row], gates: Gates, measured_on: str | None) -> Choice:
    """Choose for one target.

    Args:
        target: the target's name.
        rows: all rows, whatever their status and target.
        gates: only their ``max_drop`` matters here; rows that break one have the status ``gate``.
        measured_on: name of the machine class that latencies come from; ``None`` if it is the target's.
    """
    asked = [row for row in rows if target in row.targets]
    candidates = [row for row in asked if row.status == "ok"]
    foreign = measured_on is not None and any(row.measured.latency_ms for row in candidates)
    if not candidates:
        gated = [row for row in asked if row.status == "gate"]
        if gated:
            return Choice(target, None, f"no variant holds the gates: {_why(gated)}", gated=True)
        why = _why(asked) or "it has none of the runtimes asked for"
        return Choice(target, None, f"no variant could be made: {why}")
    allowed = DEFAULT_MAX_DROP if gates.max_drop is None else gates.max_drop
    within = [row for row in candidates if row.drop_points is None or row.drop_points <= allowed]
    if not within:
        best = min(candidates, key=lambda row: (row.drop_points or 0.0, row.size_bytes or 0))
        reason = (
            f"{best.name} loses {best.drop_points:.2f} points of accuracy, the least of "
            f"{_count(candidates)}; none stays within {_points(allowed)}"
        )
        return Choice(target, best.name, reason, foreign, suiting=(best.name,))
    best = _fastest(within)
    reason = _reason(best, within, candidates, allowed)
    if foreign:
        reason += f"; latency was measured on {measured_on}, not on {target}"
    return Choice(target, best.name, reason, foreign, suiting=tuple(row.name for row in within))


def _why(rows: Sequence[Row]) -> str:
    return "; ".join(f"{', '.join(one.names)}: {one.reason}" for one in lacking(rows))


def _fastest(rows: Sequence[Row]) -> Row:
    timed = [row for row in rows if row.measured.latency_ms is not None]
    if not timed:
        return min(rows, key=lambda row: row.size_bytes or 0)
    return min(timed, key=lambda row: (_p50(row), row.size_bytes or 0))


def _reason(best: Row, within: Sequence[Row], candidates: Sequence[Row], allowed: float) -> str:
    facts = []
    if best.measured.latency_ms is not None:
        facts.append(f"{_p50(best):.3g} ms (p50)")
    if best.drop_points is not None:
        facts.append(_drop(best.drop_points))
    elif best.measured.sqnr_db is not None and best.measured.sqnr_db < SQNR_OF_EQUAL_DB:
        facts.append(f"SQNR {best.measured.sqnr_db:.1f} dB")
    if best.size_bytes is not None:
        facts.append(f"{kilobytes(best.size_bytes)} kB")
    text = f"{best.name}: {', '.join(facts)}"
    if len(candidates) == 1:
        return f"{text}; the only usable variant"
    how = "fastest" if best.measured.latency_ms is not None else "smallest"
    if best.drop_points is not None:
        text += f"; the {how} of {_count(within)} that lose at most {_points(allowed)}"
    else:
        text += f"; the {how} of {_count(within)}; accuracy was not evaluated"
    slower = _slower_int8(best, candidates)
    return f"{text}. {slower}" if slower else text


def _slower_int8(best: Row, candidates: Sequence[Row]) -> str | None:
    """Say so when quantization did not pay."""
    if best.scheme != "float32" or best.measured.latency_ms is None:
        return None
    rivals = [row for row in candidates if row.scheme.startswith("int") and row.measured.latency_ms]
    if not rivals:
        return None
    rival = min(rivals, key=_p50)
    if _p50(rival) > _p50(best):
        return (
            f"int8 is slower here: float32 kept ({_p50(best):.3g} ms against {_p50(rival):.3g} ms "
            f"for {rival.name})"
        )
    return (
        f"{rival.name} is faster ({_p50(rival):.3g} ms) and loses too much: {_drop(rival.drop_points or 0.0)}"
    )


def _drop(points: float) -> str:
    if abs(points) < 0.005:  # noqa: PLR2004 - shown with two digits
        return "no accuracy lost"
    return f"{abs(points):.2f} points {'below' if points > 0 else 'above'} float"


def _points(number: float) -> str:
    return f"{number:g} point{'' if number == 1 else 's'}"


def _count(rows: Sequence[Row]) -> str:
    return "one variant" if len(rows) == 1 else f"{len(rows)} variants"


def _p50(row: Row) -> float:
    latency = row.measured.latency_ms
    return latency.p50 if latency is not None else float("inf")
