"""The steps of a build, and of a machine's start, as bars."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from edgeml_devices.emulator.images.build import Report

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
    """Show the steps as bars, each from when it begins, on stderr; nothing where that is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from edgeml_devices.emulator.images.build import Progress as Step

    console = Console(stderr=True)
    bars = Progress(
        TextColumn("{task.description:<20}"),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[text]}", style="dim"),
        console=console,
        disable=not console.is_terminal,
    )
    tasks = {
        name: bars.add_task(title, total=None, start=False, visible=False, text="")
        for name, title in _STEPS.items()
    }

    def report(step: Step) -> None:
        task = tasks[step.step]
        if not bars.tasks[task].started:
            bars.start_task(task)
        bars.update(task, text=step.text[:60], visible=True)
        if step.fraction is not None:
            bars.update(task, total=1.0, completed=step.fraction)

    with bars:
        yield report
