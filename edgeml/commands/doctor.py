"""``edgeml doctor``: what is here, what is missing, and how to get it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from edgeml.commands.json_output import json_option, print_json

if TYPE_CHECKING:
    from edgeml.doctor import Check


@click.command()
@json_option
@click.pass_context
def doctor(ctx: click.Context, as_json: bool) -> None:
    """Show what is here, what is missing, and how to get it.

    It looks at engines, the Edge TPU, tools, workers, the CPU and folders.
    Ends with 1 if something that is installed is broken; what is only missing is no fault.

    \b
    Examples:
      edgeml doctor
      edgeml doctor --json
    """  # noqa: D301 - \b is click's mark for text that keeps its lines
    from edgeml.doctor import checks

    found = checks()
    if as_json:
        from dataclasses import asdict

        print_json({"checks": [asdict(check) for check in found]})
    else:
        _show(found)
    if any(check.status == "broken" for check in found):
        ctx.exit(1)


def _show(found: tuple[Check, ...]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    styles = {"ok": "green", "missing": "yellow", "broken": "bold red"}
    console = Console()
    table = Table(box=None, pad_edge=False)
    for column in ("", "what", "state", "detail"):
        table.add_column(column, overflow="fold", no_wrap=column != "detail")
    before = ""
    for check in found:
        group = "" if check.group == before else check.group
        state = Text(check.status, styles[check.status])
        table.add_row(Text(group, "bold"), Text(check.name), state, Text(check.detail))
        before = check.group
    console.print(table)
    remedies = [check for check in found if check.remedy]
    if remedies:
        console.print("\nTo get what is not here:")
        for remedy in dict.fromkeys(check.remedy for check in remedies):
            names = ", ".join(check.name for check in remedies if check.remedy == remedy)
            console.print(Text(f"  {names}: {remedy}"), soft_wrap=True)
