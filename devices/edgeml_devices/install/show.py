"""How a deploy looks on a terminal: a line per device while it runs, a table at the end."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import click

from edgeml.figures import readable_size, shorten
from edgeml.measure import EMULATED
from edgeml.terminal import Column, open_console, print_table, printable
from edgeml_devices.install.device import InstalledOnDevice
from edgeml_devices.install.words import Outcome, Standing
from edgeml_devices.messages import Reason, Result

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_RESULT_WORDS: Final = {
    Result.SUCCESSFUL: "committed",
    Result.FAILED_NO_STATE_CHANGE: "failed, unchanged",
    Result.FAILED_ROLLBACK_COMPLETE: "rolled back",
    Result.FAILED_UNABLE_TO_ROLLBACK: "NOT rolled back",
}
NOTHING: Final = "–"
_LONGEST_DETAIL: Final = 60
"""Of what a device is doing, in a line that must not wrap."""


class Board:
    """Where every device stands, for several threads."""

    def __init__(self, urls: Sequence[str]) -> None:
        self._standings = {url: Standing() for url in urls}
        self._lock = threading.Lock()

    def update(self, url: str, standing: Standing) -> None:
        with self._lock:
            self._standings[url] = standing

    def standings(self) -> Mapping[str, Standing]:
        with self._lock:
            return dict(self._standings)


@contextmanager
def live(board: Board, *, hidden: bool) -> Iterator[None]:
    """Show the board while it changes, on stderr, if that is a terminal."""
    from rich.console import Console
    from rich.live import Live

    console = Console(stderr=True, highlight=False)
    if hidden or not console.is_terminal:
        yield
        return
    with Live(
        get_renderable=lambda: as_table(board.standings()),
        console=console,
        refresh_per_second=4,
        transient=True,
    ):
        yield


def as_table(standings: Mapping[str, Standing]) -> Table:
    """Draw where every device stands, a line for each."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for title in ("device", "state", "sent", "of", "rate", ""):
        table.add_column(title, justify="right" if title in {"sent", "of", "rate"} else "left", no_wrap=True)
    for url, one in standings.items():
        rate = one.bytes_per_second
        table.add_row(
            Text(url),
            "waiting" if one.state is None else one.state.value,
            readable_size(one.sent_bytes) if one.whole_bytes else "",
            readable_size(one.whole_bytes) if one.whole_bytes else "",
            "" if rate is None else f"{readable_size(int(rate))}/s",
            Text(shorten(printable(one.doing), _LONGEST_DETAIL), "dim"),
        )
    return table


def print_outcomes(outcomes: Sequence[Outcome]) -> None:
    """Print a table of how it ended, and below it what failed and why."""
    console = open_console()
    print_table(
        console,
        [
            Column("device", [one.url for one in outcomes], is_name=True),
            Column("result", [_RESULT_WORDS[one.result] for one in outcomes], is_word=True),
            Column("runs", [_runs(one) for one in outcomes]),
            Column("before", [_number(one.previous) for one in outcomes], leaves=2),
            Column(
                "variant", [printable(one.variant or NOTHING) for one in outcomes], is_word=True, leaves=1
            ),
            Column("tested by", [_tested_by(one) for one in outcomes], is_word=True, leaves=3),
            Column("sent", [readable_size(one.sent_bytes) for one in outcomes], leaves=4),
            Column("time", [f"{one.duration_s:.1f} s" for one in outcomes], leaves=5),
        ],
        ["" if one.result is Result.SUCCESSFUL else "red" for one in outcomes],
    )
    _print_details(console, outcomes)
    for one in outcomes:
        if one.emulated:
            click.echo(f"{one.url}  {EMULATED}")


def _runs(one: Outcome) -> str:
    """Give what runs; where it was stopped before it asked, that is what ran before."""
    return "as before" if one.running is None and one.reason is Reason.ABORTED else _number(one.running)


def _tested_by(one: Outcome) -> str:
    return NOTHING if one.verified == "nothing" and one.result is not Result.SUCCESSFUL else one.verified


def _print_details(console: Console, outcomes: Sequence[Outcome]) -> None:
    from rich.text import Text

    for one in outcomes:
        if one.result is Result.SUCCESSFUL and not one.detail:
            continue
        reason = "" if one.reason is None else f"{one.reason.value}: "
        console.print(Text(f"{one.url}  {reason}{printable(one.detail)}"), soft_wrap=True)


def print_installed(found: Mapping[str, Sequence[InstalledOnDevice] | str]) -> None:
    """Print what is installed, by URL; a text in the place of the models is what went wrong."""
    from rich.text import Text

    console = open_console()
    rows = [(url, one) for url, models in found.items() if not isinstance(models, str) for one in models]
    if rows:
        print_table(
            console,
            [
                Column("device", [url for url, _ in rows], is_name=True),
                Column("model", [printable(one.name) for _, one in rows], is_name=True),
                Column("runs", [_number(one.running) for _, one in rows]),
                Column("before", [_number(one.previous) for _, one in rows]),
                Column(
                    "variant",
                    [printable(", ".join(one.variants) or NOTHING) for _, one in rows],
                    is_word=True,
                    leaves=1,
                ),
                Column("last deploy", [_last(one) for _, one in rows], is_word=True, leaves=2),
            ],
        )
    for url, models in found.items():
        if isinstance(models, str):
            console.print(Text(f"{url}  {printable(models)}", "red"), soft_wrap=True)
        elif not models:
            console.print(Text(f"{url}  no model is installed"), soft_wrap=True)


def _last(one: InstalledOnDevice) -> str:
    if one.state is None:
        return "its record cannot be read"
    if one.release is None:
        return NOTHING
    reason = f" ({one.reason})" if one.reason else ""
    return printable(f"{one.release}: {one.state.value}{reason}")


def _number(release: int | None) -> str:
    return NOTHING if release is None else str(release)
