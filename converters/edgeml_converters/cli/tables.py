"""What a person sees of a conversion on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.markup import escape
from rich.text import Text

from edgeml.figures import shorten_glued
from edgeml.terminal import Column, open_console, print_table, printable_lines
from edgeml_converters.report.cells import row_cells
from edgeml_converters.report.record import all_findings
from edgeml_converters.variants.rows import lacking

if TYPE_CHECKING:
    from rich.console import Console

    from edgeml_converters.convert import ConvertResult

LONGEST = 400
STYLE = {"ok": "green", "gate": "yellow", "failed": "red", "unavailable": "dim"}


def print_result(result: ConvertResult) -> None:
    """Print the table of variants, what is not there, findings, files, and last what was chosen and why."""
    console = open_console()
    _print_rows(console, result)
    for one in lacking(result.rows):
        style = STYLE[one.status]
        console.print(f"[{style}]{one.status}[/] {', '.join(one.names)}: {_shown(one.reason)}")
    for finding in all_findings(result.outcome):
        if finding.severity == "warning":
            message = shorten_glued(finding.message)
            message = message if len(message) <= LONGEST else f"{message[:LONGEST]}…"
            text = f"{finding.code}: {finding.subject}: {message}; {finding.remedy}"
            console.print(f"[yellow]warning[/] {_shown(text)}")
    for what, path in (("bundle", result.bundle), ("report", result.report)):
        if path is not None:
            console.print(f"{what}  {escape(str(path))}", soft_wrap=True)
    for choice in result.choices:
        # why there is none is else the error that ends the command
        if choice.variant is not None or result.outcome.interrupted:
            console.print(f"[bold]{escape(choice.target)}[/]: {_shown(choice.reason)}")


def _shown(text: str) -> str:
    return escape(printable_lines(text))


def _print_rows(console: Console, result: ConvertResult) -> None:
    """Print the rows, those chosen in bold and with a mark that a pipe keeps."""
    metric = result.outcome.data.metric
    chosen = {choice.variant for choice in result.choices}
    rows = [row_cells(row, metric) for row in result.rows]
    columns = [
        Column(
            "variant", [f"{row.name} *" if row.name in chosen else row.name for row in rows], is_name=True
        ),
        Column(metric.name if metric else "accuracy", [row.accuracy for row in rows]),
        Column("drop", [row.drop for row in rows], leaves=1),
        Column("p50 ms", [row.p50 for row in rows]),
        Column("p99 ms", [row.p99 for row in rows], leaves=5),
        Column("size", [row.size for row in rows]),
        Column("SQNR dB", [row.sqnr for row in rows], leaves=2),
        Column("memory", [row.memory for row in rows], leaves=4),
        Column("load ms", [row.load for row in rows], leaves=6),
        Column("status", [row.status for row in rows], leaves=3, is_word=True),
    ]
    columns = [column for column in columns if not column.leaves or set(column.cells) != {"–"}]
    styles = [
        "bold" if row.name in chosen else STYLE[row.status] if row.status != "ok" else "" for row in rows
    ]
    print_table(console, columns, styles)
    if chosen - {None}:
        console.print(Text("* chosen for a target", "dim"))
