"""``edgeml rollout watch``: a rollout as it goes, redrawn on a terminal, a line for each change elsewhere."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

import click

from edgeml.terminal import open_console, printable
from edgeml_devices.operator.rollout_tables import (
    Document,
    describe_counts,
    describe_gate,
    summary,
)
from edgeml_devices.operator.shown import ago

if TYPE_CHECKING:
    from rich.console import Group
    from rich.text import Text

    from edgeml_devices.api_client import ApiClient

_ENDED: Final = ("FINISHED", "ABORTED", "DENIED")
_EVERY_S: Final = 1.0
_BAR: Final = 40
"""Characters of a wave's bar."""
_SHOWN_FAILURES: Final = 5


def watch_rollout(client: ApiClient, rollout_id: str, *, quiet: bool = False) -> Document:
    """Follow a rollout until it has ended; give how it ended."""
    from edgeml_devices.api_client import endpoint

    path = endpoint("rollouts", rollout_id)
    rollout: dict[str, Any] = client.get(path)
    console = open_console()
    if quiet or not console.is_terminal:
        shown: set[str] = set()
        while True:
            if not quiet:
                _print_changes(rollout, shown)
            if rollout["state"] in _ENDED:
                return rollout
            time.sleep(_EVERY_S)
            rollout = client.get(path)
    from rich.live import Live

    with Live(picture(rollout), console=console, auto_refresh=False) as live:
        while rollout["state"] not in _ENDED:
            time.sleep(_EVERY_S)
            rollout = client.get(path)
            live.update(picture(rollout), refresh=True)
    return rollout


def _print_changes(rollout: Document, shown: set[str]) -> None:
    """Print what was not printed before."""
    lines = [summary(rollout)]
    lines += [
        f"  failed: {printable(one['name'])}, attempt {one['attempt']}: {printable(one['reason'])} "
        f"{printable(one['detail'])}".rstrip()
        for one in reversed(rollout["failures"])
    ]
    for line in lines:
        if line not in shown:
            shown.add(line)
            click.echo(line)


def picture(rollout: Document) -> Group:
    """Draw a rollout: each wave as a bar, what is under way, the gates, the latest failures."""
    from rich.console import Group
    from rich.text import Text

    head = Text(f"{rollout['model']}/{rollout['release']}  ", "bold")
    head.append(rollout["state"], _STYLES.get(rollout["state"], "bold"))
    head.append(f"  {rollout['id']}", "dim")
    parts: list[Text] = [head]
    if rollout["reason"]:
        parts.append(Text(printable(rollout["reason"])))
    if not rollout["window"]["open"]:
        parts.append(Text("the maintenance window is closed: devices fetch and test, and wait", "yellow"))
    parts += [_wave_line(wave) for wave in rollout["waves"]]
    if rollout["progress"]:
        steps = ", ".join(f"{number} {name or 'not begun'}" for name, number in rollout["progress"].items())
        parts.append(Text(f"under way: {steps}"))
    parts += [Text(describe_gate(one), _GATES[one["state"]]) for one in rollout["gates"]]
    now = time.time()
    parts += [
        Text(
            f"failed {ago(one['at'], now)}: {printable(one['name'])}: "
            f"{printable(one['reason'])} {printable(one['detail'])}".rstrip(),
            "red",
        )
        for one in rollout["failures"][:_SHOWN_FAILURES]
    ]
    return Group(*parts)


def _wave_line(wave: Document) -> Text:
    from rich.text import Text

    counts = wave["counts"]
    kinds = (
        (counts["succeeded"], "█", "green"),
        (counts["failed"] + counts["forgiven"], "█", "red"),
        (counts["assigned"] + counts["held"], "▒", "cyan"),
        (counts["waiting"], "░", "dim"),
    )
    whole = sum(number for number, _, _ in kinds)
    line = Text(f"{wave['wave']:>3} ", "bold" if wave["released_at"] is not None else "dim")
    drawn = seen = 0
    for number, sign, style in kinds:
        seen += number
        until = round(_BAR * seen / whole) if whole else 0
        line.append(sign * (until - drawn), style)
        drawn = until
    line.append(" " * (_BAR - drawn))
    line.append(f" {printable(wave['what'])}: {describe_counts(counts) or 'no device'}")
    return line


_STYLES: Final = {
    "RUNNING": "bold green",
    "FINISHED": "bold green",
    "PAUSED": "bold yellow",
    "ABORTING": "bold red",
    "ABORTED": "bold red",
    "DENIED": "bold red",
}
_GATES: Final = {"PASSED": "green", "FAILED": "red", "MISSING": "yellow"}
