"""Everything that was tried, in order, and what became of each: chosen, kept, or turned down and why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, Final, Literal

from edgeml.converter import QuantizerSettings
from edgeml_converters.report.plain import finite
from edgeml_converters.search.outcome import Outcome
from edgeml_converters.search.turned_down import lost_too_much, why_not
from edgeml_converters.variants.artifact import OPTIONS
from edgeml_converters.variants.rows import Row

Fate = Literal["chosen", "kept", "gate", "unused", "failed", "unavailable"]
"""Chosen for a target; in the bundle; refused by a gate; a trial that became no variant; not made."""
SAID: Final[Mapping[str, str]] = {
    "method": "ranges by {}",
    "activations": "{} activations",
    "io_dtype": "{} input and output",
    "reduce_range": "7-bit weights",
    "equalize": "channels brought together",
    "bias_correction": "corrected biases",
    "trimmed": "dead channels taken out",
}
"""Settings that differ from the usual ones, in words; others are told by their name."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One candidate."""

    row: Row
    """As it stands in the table, with what was measured; of a trial that became no variant as it was made."""
    settings: str
    fate: Fate
    verdict: str


def trials(outcome: Outcome) -> Iterator[Trial]:
    """Give what was tried in the order of the trials, then what was compiled of it or could not be tried."""
    told = []
    for made in outcome.data.tried:
        final = _final(made, outcome)
        told.append(final)
        yield _trial(made, outcome) if final is None else _variant(final, outcome)
        for other in () if final is None else final.other_options:
            yield Trial(
                other,
                settings_in_words(other) or "usual engine options",
                "unused",
                f"turned down: {other.reason}",
            )
    for row in outcome.rows:
        if not any(row is one for one in told):
            yield _variant(row, outcome)


def trial_document(trial: Trial) -> dict[str, Any]:
    """Give a trial as what ``json.dumps`` takes."""
    row, latency = trial.row, trial.row.measured.latency_ms
    return {
        "name": row.name,
        "settings": trial.settings,
        "float_tensors": list(row.settings.float_tensors),
        "accuracy": row.measured.accuracy,
        "drop_points": finite(row.drop_points),
        "sqnr_db": row.measured.sqnr_db,
        "size_bytes": row.size_bytes,
        "p50_ms": latency.p50 if latency is not None else None,
        "fate": trial.fate,
        "verdict": trial.verdict,
    }


def settings_in_words(row: Row) -> str:
    """Say what is particular about how a row was made; empty where nothing is."""
    usual, own = QuantizerSettings(), row.settings
    said = ["rewritten for the Edge TPU"] if row.edge_tpu else []
    said += [f"compiled for the {row.accelerator}"] if row.accelerator is not None else []
    for one in fields(own):
        value = getattr(own, one.name)
        if value == getattr(usual, one.name):
            continue
        if one.name == "float_tensors":
            said.append(f"{len(value)} activation{'' if len(value) == 1 else 's'} in float")
        elif one.name == "sparsity":
            said.append(f"{100 * value:.3g} % of the weights at 0")
        elif one.name == "per_channel":
            said.append("one scale for each tensor")
        else:
            said.append(SAID.get(one.name, one.name.replace("_", " ") + " {}").format(value))
    engine = {
        name: value for name, value in row.options.items() if OPTIONS.get(row.runtime, {}).get(name) != value
    }
    return ", ".join([*said, *(f"{name}={value}" for name, value in engine.items())])


def _final(made: Row, outcome: Outcome) -> Row | None:
    """Give what became of a row that was made, if it became a variant."""
    return next(
        (row for row in outcome.rows if row.name == made.name and row.settings == made.settings), None
    )


def _variant(row: Row, outcome: Outcome) -> Trial:
    """Tell a row of the table."""
    settings = settings_in_words(row)
    if row.status == "ok":
        chosen = outcome.chosen_for(row)
        if chosen:
            return Trial(row, settings, "chosen", f"chosen for {', '.join(chosen)}")
        return Trial(row, settings, "kept", f"kept; {_left(row, outcome)}")
    if row.status == "gate":
        return Trial(row, settings, "gate", f"turned down: {row.told}")
    return Trial(row, settings, row.status, f"{_not_made(row)}: {row.told}")


def _trial(row: Row, outcome: Outcome) -> Trial:
    """Tell a row that became no variant."""
    settings = settings_in_words(row)
    if row.status in {"failed", "unavailable"}:
        return Trial(row, settings, row.status, f"{_not_made(row)}: {row.told}")
    why = row.told or lost_too_much(row, outcome.request.gates) or _not_needed(row, outcome)
    return Trial(row, settings, "unused", f"turned down: {why}")


def _not_made(row: Row) -> str:
    return "failed" if row.status == "failed" else "not made"


def _not_needed(row: Row, outcome: Outcome) -> str:
    """Say why a trial that is near enough to its source was not kept."""
    if row.settings.sparsity:
        smaller = [one.name for one in outcome.rows if one.settings.sparsity and one.runtime == row.runtime]
        if not smaller:
            return "good enough, and no smaller than without zeros"
        return f"good enough; {', '.join(smaller)} is within 5 % of the smallest file, and loses no more"
    kept = next((one for one in outcome.rows if one.name == row.name), None)
    if kept is None or not kept.is_made:
        return "good enough, and another way was taken"
    count = len(kept.settings.float_tensors)
    if len(row.settings.float_tensors) > count > 0:
        return f"good enough, and so is {count} in float"
    return f"good enough, and {kept.name} was made otherwise"


def _left(row: Row, outcome: Outcome) -> str:
    """Say why a usable variant was chosen for no target, or for none of those that it suits."""
    gates, objective = outcome.request.gates, outcome.request.objective
    reasons: dict[str, list[str]] = {}
    for choice in outcome.choices:
        if choice.target in row.targets and choice.variant is not None:
            why = why_not(row, choice, outcome.rows, gates, objective)
            reasons.setdefault(why, []).append(choice.target)
    if len(reasons) == 1:
        return next(iter(reasons))
    return "; ".join(f"{', '.join(targets)}: {why}" for why, targets in reasons.items())
