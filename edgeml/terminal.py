"""Tables and text for a terminal: numbers whole at any width, everything where nobody's screen limits it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from edgeml.figures import shorten

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

PIPED_COLUMNS: Final = 10_000
"""Width of what does not go to a terminal: no line is broken there."""
GAP: Final = 2
"""Spaces between columns."""
LONG_NAME: Final = 40
"""A name is cut to this before a column leaves, and further only when none is left to go."""
SHORTEST_NAME: Final = 16
"""A name is not cut below this."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table."""

    title: str
    cells: Sequence[str]
    leaves: int = 0
    """Columns with the highest number leave a narrow screen first; 0: stays whatever the width."""
    is_name: bool = False
    """To the left, and cut in the middle where nothing else helps."""
    is_word: bool = False
    """To the left."""

    @property
    def width(self) -> int:
        """Characters of the longest cell or line of the title."""
        return max(len(text) for text in (*self.title.split("\n"), *self.cells, ""))


def open_console() -> Console:
    """Give the console for stdout: as wide as the terminal, without limit if there is none."""
    from rich.console import Console

    console = Console(highlight=False)
    return console if console.is_terminal else Console(width=PIPED_COLUMNS, highlight=False)


@contextmanager
def showing(*, piped: bool = False) -> Iterator[Callable[[str], None]]:
    """Give a function that shows a line on stderr in place of the one before, if someone looks.

    Where nobody does, each line stands on its own if it is ``piped``; else there is none.
    """
    import click
    from rich.console import Console
    from rich.text import Text

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda text: click.echo(text, err=True) if piped else None
        return
    with console.status("") as status:
        yield lambda text: status.update(Text(text))


def printable(text: str) -> str:
    """Replace control characters: what another machine says must not write to the terminal."""
    return "".join(sign if sign.isprintable() else "�" for sign in text)


def printable_lines(text: str) -> str:
    """Replace control characters in a text of several lines: names in a stranger's model are texts, too."""
    return "\n".join(printable(line.replace("\t", " ")) for line in text.split("\n"))


def fitting(columns: Sequence[Column], width: int) -> tuple[Column, ...]:
    """Give the columns that fit: long names are cut first, then the least important columns leave."""
    return tuple(column for _, column in _placed(columns, width))


def _placed(columns: Sequence[Column], width: int) -> list[tuple[int, Column]]:
    """Give the columns that fit with their places: several may have one title."""
    kept = list(enumerate(_shortened(columns, width, LONG_NAME)))
    while _width([one for _, one in kept]) > width and any(one.leaves for _, one in kept):
        kept.remove(max(reversed(kept), key=lambda one: one[1].leaves))
    places = [place for place, _ in kept]
    # the names get back what those that left have freed
    again = _shortened([columns[place] for place in places], width, LONG_NAME)
    return list(zip(places, _shortened(again, width, SHORTEST_NAME), strict=True))


def print_table(
    console: Console, columns: Sequence[Column], styles: Sequence[str] = (), *, title: str = ""
) -> None:
    """Print a table and, below it, which columns the screen had no room for.

    Args:
        console: where to.
        columns: all of the same length.
        styles: a rich style for each row; none: plain.
        title: a line above.
    """
    from rich.text import Text

    placed = _placed(columns, console.width)
    shown = [column for _, column in placed]
    if title:
        console.print(Text(title), soft_wrap=True)
    # a screen narrower than what stays breaks lines itself; rich would cut numbers
    console.print(
        table_of(shown, styles), width=max(console.width, _width(shown)), crop=False, soft_wrap=False
    )
    places = {place for place, _ in placed}
    hidden = [one.title.replace("\n", " ") for place, one in enumerate(columns) if place not in places]
    if hidden:
        console.print(Text(f"not shown at this width: {', '.join(hidden)}", "dim"))


def table_of(columns: Sequence[Column], styles: Sequence[str] = ()) -> Table:
    """Give the table that :func:`print_table` prints, for what is redrawn; see :func:`fitting`."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold")
    for column in columns:
        to_left = column.is_name or column.is_word
        table.add_column(
            Text(column.title),
            justify="left" if to_left else "right",
            no_wrap=True,
            min_width=column.width,
        )
    for place, cells in enumerate(zip(*(column.cells for column in columns), strict=True)):
        table.add_row(
            *(Text(printable_lines(cell)) for cell in cells), style=styles[place] if styles else None
        )
    return table


def _shortened(columns: Sequence[Column], width: int, shortest: int) -> list[Column]:
    """Cut names in their middle as far as the width asks for and ``shortest`` allows."""
    over, found = _width(columns) - width, []
    for column in columns:
        longest = max(min(shortest, column.width), column.width - max(0, over))
        if column.is_name and longest < column.width:
            over -= column.width - longest
            cells = [shorten(cell, longest) for cell in column.cells]
            found.append(replace(column, cells=cells))
        else:
            found.append(column)
    return found


def _width(columns: Sequence[Column]) -> int:
    return sum(column.width for column in columns) + GAP * (len(columns) - 1)
