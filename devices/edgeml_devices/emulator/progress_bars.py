"""The steps of a build, and of a machine's start, as bars or lines."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from rich.console import Console

    from edgeml_devices.emulator.images.build import Progress as Step
    from edgeml_devices.emulator.images.build import Report

NOTE: Final = "note"
"""A step whose text is for people, and no step."""
_STEPS: Final = {
    "wheels": "aarch64 wheels",
    "packages": "Debian packages",
    "root": "root file system",
    "kernel": "kernel",
    "site": "engines and edgeml",
    "disk": "disk",
    "snapshot": "snapshot",
    "boot": "booting",
}


@contextmanager
def shown_progress() -> Iterator[Report]:
    """Show the steps on stderr, each from when it begins: as bars, or as lines where that is no terminal."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _as_lines()
        return
    with _as_bars(console) as report:
        yield report


def told(where: str) -> Report:
    """Give a report for those who show no steps: what takes long is a line on stderr, once.

    Args:
        where: whom it is about.
    """
    lines = {"snapshot": "it is booted once, for a snapshot that all others go on from"}
    said: set[str] = set()

    def report(step: Step) -> None:
        line = step.text if step.step == NOTE else lines.get(step.step)
        if line is not None and line not in said:
            said.add(line)
            _write(f"{where}: {line}")

    return report


def _as_lines() -> Report:
    begun: set[str] = set()

    def report(step: Step) -> None:
        if step.step == NOTE:
            _write(step.text)
        elif step.step not in begun:
            begun.add(step.step)
            _write(_STEPS[step.step])

    return report


def _write(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


@contextmanager
def _as_bars(console: Console) -> Iterator[Report]:
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    bars = Progress(
        TextColumn("{task.description:<20}"),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[text]}", style="dim"),
        console=console,
    )
    tasks = {
        name: bars.add_task(title, total=None, start=False, visible=False, text="")
        for name, title in _STEPS.items()
    }

    def report(step: Step) -> None:
        if step.step == NOTE:
            bars.console.print(step.text, highlight=False, markup=False)
            return
        task = tasks[step.step]
        if not bars.tasks[task].started:
            bars.start_task(task)
        bars.update(task, text=step.text[:60], visible=True)
        if step.fraction is not None:
            bars.update(task, total=1.0, completed=step.fraction)

    with bars:
        yield report
