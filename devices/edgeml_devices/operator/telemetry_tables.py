"""Answers about telemetry, as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import click

from edgeml.figures import milliseconds, readable_size
from edgeml.terminal import Column, open_console, print_table, printable
from edgeml_devices.operator.shown import NOTHING, moment, span

_MS: Final = 1000.0
_RARE: Final = 1e-4


def print_quantiles(found: Mapping[str, Any], *, is_time: bool) -> None:
    """Print quantiles: milliseconds, or shares for confidence."""
    answers = found["answers"]
    if _is_empty(answers):
        return
    unit = "\nms" if is_time else ""

    def show(value: float) -> str:
        return milliseconds(value * _MS) if is_time else f"{value:.3f}"

    columns = [*_keys(answers), Column("calls", [f"{one['count']:,}" for one in answers])]
    for share in answers[0]["quantiles"]:
        values = [one["quantiles"][share] for one in answers]
        columns.append(Column(f"{_share_name(share)}{unit}", [show(one["value"]) for one in values]))
        ranges = [f"{show(one['low'])}–{show(one['high'])}" for one in values]
        columns.append(Column(f"{_share_name(share)}\n95 %", ranges, leaves=2))
    columns.append(Column(f"mean{unit}", [show(one["mean"]) for one in answers], leaves=1))
    columns.append(Column(f"max{unit}", [show(one["max"]) for one in answers], leaves=1))
    print_table(open_console(), columns)


def print_rates(found: Mapping[str, Any]) -> None:
    """Print error rates."""
    answers = found["answers"]
    if _is_empty(answers):
        return
    ranges = [f"{_percent(one['rate']['low'])}–{_percent(one['rate']['high'])}" for one in answers]
    columns = [
        *_keys(answers),
        Column("calls", [f"{one['calls']:,}" for one in answers]),
        Column("calls/s", [f"{one['per_s']:.3g}" for one in answers], leaves=1),
        Column("errors", [f"{one['errors']:,}" for one in answers]),
        Column("rate", [_percent(one["rate"]["value"]) for one in answers]),
        Column("95 % interval", ranges, leaves=2),
    ]
    print_table(open_console(), columns)


def print_comparison(found: Mapping[str, Any]) -> None:
    """Print how one release did against another."""
    ours, theirs = found["release"], found["against"]
    click.echo(
        f"{found['model']} release {ours} against {theirs}: devices {found['devices']:,}, "
        f"cells {found['cells']:,}, calls {found['calls']:,} against {found['calls_against']:,}"
    )
    for share, ratio in found["ratios"].items():
        if ratio is not None:
            sure = _sure(ratio, 1.0, "×", "slower", "faster")
            click.echo(f"  latency {_share_name(share)}: ×{ratio['value']:.3f} {sure}")
    difference = found["error_difference"]
    if difference is not None:
        points = {key: None if one is None else one * 100 for key, one in difference.items()}
        click.echo(
            f"  errors: {_percent(found['error_rate'])} against {_percent(found['error_rate_against'])}, "
            f"{points['value']:+.3g} points {_sure(points, 0.0, '', 'more errors', 'fewer errors')}"
        )
    if found["note"]:
        click.echo(f"  {found['note']}")


def _sure(interval: Mapping[str, Any], same: float, sign: str, more: str, less: str) -> str:
    low, high = interval["low"], interval["high"]
    if low is None or high is None:
        return "(no interval)"
    verdict = more if low > same else less if high < same else "no difference seen"
    return f"(95 %: {sign}{low:.3g} to {sign}{high:.3g}): {verdict}"


def print_drift(found: Mapping[str, Any], *, every: bool) -> None:
    """Print features that drifted, the surest first; or every feature that was judged."""
    answers = [one for one in found["answers"] if every or one["drifted"]]
    if answers:
        columns = [
            Column("of", [_group(one["group"]) for one in answers], is_name=True),
            Column("feature", [printable(one["feature"]) for one in answers], is_name=True),
            Column("n", [f"{one['n']:,}" for one in answers]),
            Column("devices", [f"{one['devices']:,}" for one in answers], leaves=2),
            Column("tests that tell", [_tests(one["tests"]) for one in answers], is_word=True, leaves=1),
            Column("q", [f"{one['q']:.2g}" for one in answers]),
            Column("shift\nsd", [_or_nothing(one["shift"], "{:+.2f}") for one in answers]),
            Column("PSI", [_or_nothing(one["psi"], "{:.3f}") for one in answers], leaves=3),
        ]
        print_table(open_console(), columns, ["red" if one["drifted"] else "" for one in answers])
    elif found["answers"]:
        click.echo(f"no drift was found: {len(found['answers']):,} judged, all as in the reference")
    else:
        click.echo(
            "nothing was judged: no release with a reference has 30 inferences in that time; "
            "edgeml telemetry rate --by model,release shows what was called"
        )
    _print_unknown(found)


def print_slow_drift(found: Mapping[str, Any]) -> None:
    """Print what left its reference slowly, what lasts first."""
    answers = found["answers"]
    if answers:
        columns = [
            Column("of", [_group(one["group"]) for one in answers], is_name=True),
            Column("feature", [printable(one["feature"]) for one in answers], is_name=True),
            Column("goes", [one["direction"] for one in answers], is_word=True),
            Column("since", [moment(one["since"]) for one in answers], is_word=True),
            Column("sure at", [moment(one["at"]) for one in answers], is_word=True, leaves=1),
            Column("lasts", ["yes" if one["lasts"] else "no" for one in answers], is_word=True),
        ]
        print_table(open_console(), columns, ["red" if one["lasts"] else "" for one in answers])
    else:
        click.echo(
            "no slow drift was found" if found["groups"] else "nothing was judged: no reference, or no counts"
        )
    if found["found"] > len(answers):
        click.echo(f"and {found['found'] - len(answers):,} more")
    chance = found["false_alarms_at_most"]
    click.echo(f"groups {found['groups']:,}; false alarms if nothing drifts: {chance:.2g} at most")
    if found["windows_left_aside"]:
        click.echo(f"windows of more groups, left aside: {found['windows_left_aside']:,}")
    _print_unknown(found)


def _print_unknown(found: Mapping[str, Any]) -> None:
    if found["windows_without_reference"]:
        click.echo(f"windows whose bundle this server does not have: {found['windows_without_reference']:,}")


def _group(group: Mapping[str, Any]) -> str:
    release = "" if group["release"] is None else f"/{group['release']}"
    return printable(f"{group['model']}{release} {group['name']}".rstrip())


def _tests(tests: Sequence[Mapping[str, Any]]) -> str:
    """Give the tests by how little chance explains what they saw."""
    ranked = sorted(tests, key=lambda one: one["p"])
    return ", ".join(f"{one['test']} p={one['p']:.2g} effect {one['effect']:.2f}" for one in ranked[:2])


def print_machines(found: Mapping[str, Any]) -> None:
    """Print quantities of machines, mean and greatest."""
    answers = found["answers"]
    if _is_empty(answers):
        return
    columns = _keys(answers)
    for name in sorted({name for one in answers for name in one["quantities"]}):
        cells = [_quantity(name, one["quantities"].get(name)) for one in answers]
        columns.append(Column(f"{name}\nmean, max", cells, leaves=1 if name.startswith("process") else 0))
    energy = [one["energy_per_call_joules"] for one in answers]
    if any(one is not None for one in energy):
        columns.append(Column("J/call", [NOTHING if one is None else f"{one:.3g}" for one in energy]))
    print_table(open_console(), columns)


def print_coverage(found: Mapping[str, Any]) -> None:
    """Print what came of each device on each day."""
    answers = found["answers"]
    if _is_empty(answers):
        return
    columns = [
        Column("device", [printable(one["device"]) for one in answers], is_name=True),
        Column("day", [one["day"] for one in answers], is_word=True),
        Column("windows", [f"{one['received']:,}" for one in answers]),
        Column("covered", [f"{one['covered'] * 100:.1f} %" for one in answers]),
        *(Column(name, [f"{one[name]:,}" for one in answers]) for name in ("missing", "evicted", "damaged")),
        *(
            Column(name, [f"{one[name]:,}" for one in answers], leaves=1)
            for name in ("merged", "overwritten", "boots")
        ),
    ]
    styles = ["yellow" if one["missing"] or one["evicted"] or one["damaged"] else "" for one in answers]
    print_table(open_console(), columns, styles)
    for one in answers:
        if one["epochs"] > 1:
            click.echo(
                f"{printable(one['device'])}, {one['day']}: counted in {one['epochs']} epochs: "
                "a copy of the device sends, too, or its spool was restored or lost"
            )
        if one["gaps"]:
            gaps = ", ".join(
                f"{first}–{last}" if first != last else str(first) for first, last in one["gaps"][:8]
            )
            click.echo(f"{printable(one['device'])}, {one['day']}: windows that never came: {gaps}")


def print_samples(found: Mapping[str, Any]) -> None:
    """Print inferences that were kept."""
    answers = found["answers"]
    if _is_empty(answers):
        return
    kept = [one["sample"] for one in answers]
    columns = [
        Column("at", [moment(one["at"]) for one in kept], is_word=True),
        Column("device", [printable(one["device"]) for one in answers], is_name=True),
        Column("model", [f"{printable(one['model'])}/{one['release']}" for one in answers], is_name=True),
        Column("why", [one["why"] for one in kept], is_word=True),
        Column("label", [printable(one["label"] or NOTHING) for one in kept], is_name=True),
        Column("confidence", [_or_nothing(one["confidence"], "{:.3f}") for one in kept]),
        Column("ms", [_or_nothing(one["latency_s"], "{:.3f}", _MS) for one in kept], leaves=1),
        Column("input", ["kept" if one["raw"] else "" for one in kept], is_word=True, leaves=1),
        Column("error", [printable(one["error"] or "") for one in kept], is_name=True, leaves=2),
    ]
    print_table(open_console(), columns)


def _is_empty(answers: Sequence[Any]) -> bool:
    if not answers:
        click.echo("nothing was reported of that in that time; edgeml telemetry coverage shows what came")
    return not answers


def _keys(answers: Sequence[Mapping[str, Any]]) -> list[Column]:
    return [
        Column(
            name,
            [printable(str(one["key"][name])) for one in answers],
            is_name=name == "device",
            is_word=True,
        )
        for name in answers[0]["key"]
    ]


def _share_name(share: str) -> str:
    return f"p{float(share) * 100:g}"


def _percent(share: float) -> str:
    return f"{share * 100:.3f} %" if 0 < share < _RARE * 10 else f"{share * 100:.2f} %"


def _quantity(name: str, one: Mapping[str, Any] | None) -> str:
    if one is None:
        return NOTHING
    if name.endswith("bytes"):
        return f"{readable_size(round(one['mean']))}, {readable_size(round(one['max']))}"
    if name.endswith("utilization"):
        return f"{one['mean']:.0%}, {one['max']:.0%}"
    if name.endswith("_s"):
        return f"{span(one['mean'])}, {span(one['max'])}"
    return f"{one['mean']:.3g}, {one['max']:.3g}"


def _or_nothing(value: float | None, pattern: str, factor: float = 1.0) -> str:
    return NOTHING if value is None else pattern.format(value * factor)
