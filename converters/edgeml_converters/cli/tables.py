"""What a person sees of conversions, comparisons and models on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from edgeml_converters.report.record import all_findings, sqnr
from edgeml_converters.variants.rows import kilobytes, lacking

if TYPE_CHECKING:
    from edgeml_converters.convert import ConvertResult
    from edgeml_converters.evaluate.metrics import Metric
    from edgeml_converters.variants.rows import Row

WIDE = 100
"""Columns of a terminal from which p99 and memory are shown as well; the report has them always."""
PIPED_COLUMNS = 120
"""Width of what does not go to a terminal."""
LONGEST = 400
STYLE = {"ok": "green", "gate": "yellow", "failed": "red", "unavailable": "dim"}


def print_result(result: ConvertResult) -> None:
    """Print the table of variants, what is not there, findings, files, and last what was chosen and why."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=max(console.width, PIPED_COLUMNS))
    outcome = result.outcome
    console.print(_table(result, wide=console.width >= WIDE))
    for one in lacking(result.rows):
        style = STYLE[one.status]
        console.print(
            f"[{style}]{one.status}[/] {', '.join(one.names)}: {escape(one.reason)}", highlight=False
        )
    for finding in all_findings(outcome):
        if finding.severity == "warning":
            message = finding.message
            message = message if len(message) <= LONGEST else f"{message[:LONGEST]}…"
            text = f"{finding.code}: {finding.subject}: {message}; {finding.remedy}"
            console.print(f"[yellow]warning[/] {escape(text)}", highlight=False)
    for what, path in (("bundle", result.bundle), ("report", result.report)):
        if path is not None:
            console.print(f"{what}  {escape(str(path))}", highlight=False, soft_wrap=True)
    for choice in result.choices:
        if choice.variant is not None:  # why there is none is the error that ends the command
            console.print(f"[bold]{escape(choice.target)}[/]: {escape(choice.reason)}", highlight=False)


def _table(result: ConvertResult, *, wide: bool) -> Table:
    metric = result.outcome.data.metric
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("variant", no_wrap=True)
    names = [metric.name if metric else "accuracy", "drop", "SQNR dB", "p50 ms", "p99 ms", "MB", "kB"]
    for name in names if wide else names[:4] + names[6:]:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("status", no_wrap=True)
    chosen = {choice.variant for choice in result.choices}
    for row in result.rows:
        cells = _cells(row, metric)
        shown = cells if wide else cells[:5] + cells[7:]
        table.add_row(*shown, style="bold" if row.name in chosen else None)
    return table


def _cells(row: Row, metric: Metric | None) -> list[str]:
    measured, latency = row.measured, row.measured.latency_ms
    return [
        row.name,
        metric.show(measured.accuracy) if metric is not None else "–",
        "–" if row.drop_points is None else f"{row.drop_points:+.2f}",
        sqnr(measured.sqnr_db),
        "–" if latency is None else f"{latency.p50:.3f}",
        "–" if latency is None else f"{latency.p99:.3f}",
        "–" if measured.peak_memory_bytes is None else f"{measured.peak_memory_bytes / 1e6:.0f}",
        kilobytes(row.size_bytes),
        f"[{STYLE[row.status]}]{row.status}[/]",
    ]
