"""What people and machines read of benchmarks and runs."""

from __future__ import annotations

from pathlib import PurePath
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.progress import track
from rich.text import Text

from edgeml.figures import milliseconds, readable_size
from edgeml.measure import EMULATED
from edgeml.terminal import Column, open_console, print_table

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from edgeml.data import Dataset
    from edgeml.measure import Measurement
    from edgeml.pipeline import Prediction
    from edgeml.runtime import OperatorTime
    from edgeml_runtimes.benchmark import Job, Result

_OPERATORS_SHOWN = 40


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


def print_results(results: Sequence[Result]) -> None:
    """Print a table, the quickest marked, and the operators where they were timed."""
    console = open_console()
    titles = _titles(results)
    measured = [(title, result) for title, result in zip(titles, results, strict=True) if result.measurement]
    if measured:
        _print_table(console, measured)
    for title, result in measured:
        if result.operators:
            _print_operators(console, title, result)
        elif result.reason:
            console.print(Text(f"{title}: {result.reason}"))
    for title, result in zip(titles, results, strict=True):
        if result.measurement is None:
            click.echo(f"{click.style('failed:', fg='red')} {title}: {result.reason}", err=True)


def _print_table(console: Console, measured: Sequence[tuple[str, Result]]) -> None:
    found = [result.measurement for _, result in measured if result.measurement is not None]
    is_emulated = any(one.emulated for one in found)
    rankable = len(found) > 1 and not is_emulated
    best = min(found, key=lambda one: one.latency_ms.p50) if rankable else None
    names = [f"{title} *" if one is best else title for (title, _), one in zip(measured, found, strict=True)]
    columns = [Column("", names, is_name=True)]
    if any(result.job.variant is None for _, result in measured):
        # a variant's name begins with its runtime
        columns.append(Column("runtime", [one.runtime for one in found], leaves=1, is_word=True))
    columns += [
        Column("p50\nms", [milliseconds(one.latency_ms.p50) for one in found]),
        Column("p95\nms", [milliseconds(one.latency_ms.p95) for one in found], leaves=5),
        Column("p99\nms", [milliseconds(one.latency_ms.p99) for one in found], leaves=4),
        *_rates(found),
        Column("load\nms", [milliseconds(one.load_ms) for one in found], leaves=3),
        Column("import\nms", [f"{one.import_ms:,.0f}" for one in found], leaves=6),
        Column("peak\nmemory", [readable_size(one.peak_memory_bytes) for one in found], leaves=2),
    ]
    print_table(console, columns, ["bold" if one is best else "" for one in found])
    if best is not None:
        console.print(Text("* quickest by p50", "dim"))
    threads = found[0].threads
    console.print(Text(f"{threads} thread{'s' if threads > 1 else ''}, {found[0].machine}", "dim"))
    if is_emulated:
        console.print(Text(EMULATED, "bold"))


def _rates(found: Sequence[Measurement]) -> list[Column]:
    """Give a column of inferences per second for each number of threads that was asked for."""
    counts = sorted({part.threads for one in found for part in one.throughput})
    columns = []
    for count in counts:
        rates = [{part.threads: part.per_second for part in one.throughput} for one in found]
        cells = [f"{rate[count]:,.0f}" if count in rate else "–" for rate in rates]
        asked = f"per s,\n{count} thr." if len(counts) > 1 else "per\nsecond"
        columns.append(Column(asked, cells, leaves=2 if len(counts) > 1 else 1))
    return columns


def _print_operators(console: Console, title: str, result: Result) -> None:
    total = sum(part.mean_us for part in result.operators) or 1.0
    ordered: list[OperatorTime] = sorted(result.operators, key=lambda part: -part.mean_us)
    shown = ordered[:_OPERATORS_SHOWN]
    columns = [
        Column("µs", [f"{part.mean_us:,.1f}" for part in shown]),
        Column("%", [f"{part.mean_us / total * 100:.0f}" for part in shown]),
        Column("operator", [part.kind for part in shown], is_word=True),
        Column("name", [part.name for part in shown], is_name=True),
    ]
    console.print()
    print_table(console, columns, title=f"{title}: operators, costliest first")
    if len(ordered) > _OPERATORS_SHOWN:
        console.print(Text(f"and {len(ordered) - _OPERATORS_SHOWN} more; --json has them all", "dim"))


def _titles(results: Sequence[Result]) -> list[str]:
    """Name each row: its variant, or as much of the path's end as tells the files apart."""
    artifacts = {result.job.artifact for result in results if result.job.variant is None}
    return [result.job.variant or telling(result.job.artifact, artifacts) for result in results]


def telling(path: str, others: Iterable[str]) -> str:
    """Give the shortest end of a path, in whole parts, that no other path ends in."""
    parts = PurePath(path).parts
    rest = [PurePath(other).parts for other in others if PurePath(other) != PurePath(path)]
    for count in range(1, len(parts)):
        if all(other[-count:] != parts[-count:] for other in rest):
            return str(PurePath(*parts[-count:]))
    return path
