"""A plan and a run, as tables and as JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from edgeml.figures import readable_size
from edgeml.terminal import Column, open_console, print_table, printable
from edgeml_devices.simulator.plan import Foreseen

if TYPE_CHECKING:
    from edgeml_devices.simulator.run import Ran
    from edgeml_devices.simulator.scenario import Scenario

_SHOWN_REFUSALS: Final = 5


def plan_json(scenario: Scenario, foreseen: Foreseen) -> dict[str, Any]:
    """Give what a seed says of a run."""
    return {
        "title": scenario.title,
        "seed": scenario.seed,
        "duration_s": scenario.duration_s,
        "devices": foreseen.devices,
        "present_at_the_end": foreseen.present,
        "windows": foreseen.windows,
        "windows_lost_at_most": foreseen.lost,
        "inferences": foreseen.calls,
        "failed_inferences": foreseen.errors,
        "rollouts": [
            {"model": one.model, "release": one.release, "expect": one.expect, "results": dict(results)}
            for one, results in zip(scenario.rollouts, foreseen.results, strict=True)
        ],
    }


def print_plan(scenario: Scenario, foreseen: Foreseen) -> None:
    """Print what a server should hold after a run."""
    rows = [
        ("devices", f"{foreseen.devices}"),
        ("  at the end", f"{foreseen.present}"),
        ("windows of those", f"{foreseen.windows}"),
        ("windows that are lost, at most", f"{foreseen.lost}"),
        ("inferences", f"{foreseen.calls}"),
        ("  that failed", f"{foreseen.errors}"),
    ]
    for one, results in zip(scenario.rollouts, foreseen.results, strict=True):
        release = "newest" if one.release is None else one.release
        rows.append((f"{one.model}/{release}, reaching all", one.expect or ""))
        rows += [(f"  {name}", f"{number}") for name, number in sorted(results.items())]
    columns = [
        Column("", [name for name, _ in rows], is_name=True),
        Column("foreseen", [value for _, value in rows]),
    ]
    print_table(open_console(), columns, title=_title(scenario))


def run_json(ran: Ran) -> dict[str, Any]:
    """Give what came of a run."""
    scenario = ran.scenario
    return {
        "run": ran.run,
        "server": ran.server,
        "title": scenario.title,
        "seed": scenario.seed,
        "good": ran.is_good,
        "interrupted": not ran.is_whole,
        "lasted_s": ran.lasted_s,
        "joining_s": ran.joining_s,
        "windows_sent_again": ran.windows_sent_again,
        "further_epochs": ran.further_epochs,
        "answers_lost": ran.answers_lost,
        "downloaded_bytes": ran.downloaded_bytes,
        "peak_memory_bytes": ran.peak_memory_bytes,
        "refused": dict(ran.refused),
        "problems": list(ran.problems),
        "lines": [asdict(line) for line in ran.lines],
    }


def print_run(ran: Ran) -> None:
    """Print what a server should hold and holds; what differs is red, and stands below with examples."""
    from rich.text import Text

    console, lines = open_console(), ran.lines
    columns = [
        Column("", [line.what for line in lines], is_name=True),
        Column("foreseen", [line.foreseen for line in lines], leaves=1),
        Column("should hold", [line.should for line in lines]),
        Column("holds", [line.holds for line in lines]),
        Column("", ["" if line.is_good else "differs" for line in lines], is_word=True),
    ]
    print_table(
        console,
        columns,
        ["" if line.is_good else "red" for line in lines],
        title=f"{_title(ran.scenario)}, run {ran.run}",
    )
    for line in lines:
        for example in line.examples:
            console.print(Text(f"{line.what}: {printable(example)}", "red"), soft_wrap=True)
    for problem in ran.problems:
        console.print(Text(printable(problem), "red"), soft_wrap=True)
    console.print(
        f"{ran.lasted_s:.0f} s{'' if ran.is_whole else ', interrupted'}; joining took {ran.joining_s:.0f} s; "
        f"{ran.windows_sent_again} windows sent more than once, {ran.further_epochs} further epochs; "
        f"{ran.answers_lost} answers lost; {readable_size(ran.downloaded_bytes)} downloaded; "
        f"this process had {readable_size(ran.peak_memory_bytes)} at most",
        soft_wrap=True,
    )
    for message, number in ran.refused[:_SHOWN_REFUSALS]:
        console.print(Text(f"{number} × tried again: {printable(message)}", "dim"), soft_wrap=True)


def _title(scenario: Scenario) -> str:
    return printable(f"{scenario.title or 'simulation'}: {scenario.devices} devices, seed {scenario.seed}")
