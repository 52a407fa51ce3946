"""What people and machines read of benchmarks and runs."""

from __future__ import annotations

import json
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text

from edgeml_runtimes.benchmark import result_to_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from edgeml.data import Dataset
    from edgeml.pipeline import Prediction
    from edgeml.runtime import OperatorTime
    from edgeml_runtimes.benchmark import Job, Result

_MIB = 1 << 20
_OPERATORS_SHOWN = 40
_NAME_WIDTH = 24
_LONG_MS = 100
"""From here on a table shows whole milliseconds."""


def measuring(jobs: Sequence[Job]) -> Iterator[Job]:
    """Give the jobs one after another and show on stderr which one is at work."""
    console = Console(stderr=True)
    for place, job in enumerate(jobs):
        title = job.variant or PurePath(job.artifact).name
        with console.status(f"measuring {title} ({place + 1} of {len(jobs)})"):
            yield job


def following(
    items: Iterable[tuple[str, Prediction]], dataset: Dataset, done: int
) -> Iterator[tuple[str, Prediction]]:
    """Give the items and show progress on stderr, if there are several and someone looks."""
    console = Console(stderr=True)
    if len(dataset) == 1 or not console.is_terminal:
        yield from items
        return
    yield from track(items, "running", total=len(dataset), completed=done, console=console, transient=True)


def print_json(results: Sequence[Result]) -> None:
    """Print ``{"schema": 1, "results": […]}``."""
    click.echo(json.dumps({"schema": 1, "results": [result_to_json(result) for result in results]}, indent=2))


def print_results(results: Sequence[Result]) -> None:
    """Print a table, the quickest marked, and the operators where they were timed."""
    console = Console()
    measured = [result for result in results if result.measurement is not None]
    if measured:
        _print_table(console, measured)
    for result in measured:
        if result.operators:
            _print_operators(console, result)
        elif result.reason:
            console.print(Text(f"{_title(result)}: {result.reason}"))
    for result in results:
        if result.measurement is None:
            click.echo(f"{click.style('failed:', fg='red')} {_title(result)}: {result.reason}", err=True)


def _print_table(console: Console, measured: Sequence[Result]) -> None:
    table = Table(box=None, pad_edge=False)
    table.add_column("", overflow="fold")
    # A variant's name begins with its runtime.
    named = any(result.job.variant is None for result in measured)
    if named:
        table.add_column("runtime", no_wrap=True)
    for column in ("p50\nms", "p95\nms", "p99\nms", "per\nsecond", "load\nms", "import\nms", "peak\nMiB"):
        table.add_column(column, justify="right", no_wrap=True)
    best = min(measured, key=_p50) if len(measured) > 1 else None
    for result in measured:
        table.add_row(*_cells(result, is_best=result is best, named=named))
    console.print(table)
    if best is not None:
        console.print(Text("* quickest by p50", "dim"))
    first = measured[0].measurement
    if first is not None:
        note = f"{first.threads} thread{'s' if first.threads > 1 else ''}, {first.machine}"
        console.print(Text(f"{note}; rates with (threads) where several were asked for", "dim"))


def _cells(result: Result, *, is_best: bool, named: bool) -> list[Any]:
    found = result.measurement
    if found is None:
        return []
    several = len(found.throughput) > 1
    rates = "\n".join(
        f"{part.per_second:,.0f}" + (f" ({part.threads})" if several else "") for part in found.throughput
    )
    latency = found.latency_ms
    return [
        Text(_title(result) + (" *" if is_best else ""), "bold" if is_best else ""),
        *([found.runtime] if named else []),
        *(_milliseconds(value) for value in (latency.p50, latency.p95, latency.p99)),
        rates,
        _milliseconds(found.load_ms),
        f"{found.import_ms:.0f}",
        f"{found.peak_memory_bytes / _MIB:.1f}",
    ]


def _milliseconds(value: float) -> str:
    digits = 3 if value < 1 else 2 if value < _LONG_MS else 0
    return f"{value:.{digits}f}"


def _print_operators(console: Console, result: Result) -> None:
    total = sum(part.mean_us for part in result.operators) or 1.0
    table = Table(
        title=f"{_title(result)}: operators, costliest first", title_justify="left", box=None, pad_edge=False
    )
    table.add_column("µs", justify="right", no_wrap=True)
    table.add_column("%", justify="right", no_wrap=True)
    table.add_column("operator", no_wrap=True)
    table.add_column(
        "name", overflow="ellipsis", no_wrap=True, max_width=max(_NAME_WIDTH, console.width - 60)
    )
    ordered: list[OperatorTime] = sorted(result.operators, key=lambda part: -part.mean_us)
    for part in ordered[:_OPERATORS_SHOWN]:
        table.add_row(f"{part.mean_us:.1f}", f"{part.mean_us / total * 100:.0f}", part.kind, Text(part.name))
    console.print()
    console.print(table)
    if len(ordered) > _OPERATORS_SHOWN:
        console.print(Text(f"and {len(ordered) - _OPERATORS_SHOWN} more; --json has them all", "dim"))


def _p50(result: Result) -> float:
    return result.measurement.latency_ms.p50 if result.measurement else float("inf")


def _title(result: Result) -> str:
    return result.job.variant or PurePath(result.job.artifact).name
