"""What ``edgeml compare BUNDLE --on URL`` does and prints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click
from rich.text import Text

from edgeml.bundle import is_bundle
from edgeml.commands.json_output import print_json
from edgeml.errors import UsageError
from edgeml.remote import remote_edgeml
from edgeml.terminal import Column, open_console, print_table, showing
from edgeml_converters.compare.machines import MachineComparison, Verdict, compare_on

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_BEYOND: Final = 3
_WORDS: Final[Mapping[Verdict, str]] = {
    "equal": "equal",
    "within": "within",
    "beyond": "BEYOND",
    "not_compared": "not compared",
}
_STYLES: Final[Mapping[Verdict, str]] = {"beyond": "red", "not_compared": "dim"}


def compare_bundle(
    bundle: Path,
    url: str,
    *,
    variants: Sequence[str],
    data: str | None,
    preprocess: Sequence[str],
    limit: int | None,
    as_json: bool,
) -> None:
    """Compare a bundle's variants here and there, and end with exit code 3 if one is beyond its tolerance."""
    if not is_bundle(bundle):
        raise UsageError(f"{bundle} is no bundle; --on compares one: edgeml convert makes it")
    if data is None and (preprocess or limit):
        raise UsageError("--preprocess and --limit are for --data; golden samples are taken as they are")
    with showing() as show, remote_edgeml(url, show) as remote:
        found = compare_on(
            remote, bundle, names=variants, data=data, preprocess=preprocess, limit=limit, show=show
        )
    if as_json:
        print_json(found.to_json())
    else:
        _print(found)
    if any(one.verdict == "beyond" for one in found.variants):
        click.get_current_context().exit(_BEYOND)


def _print(found: MachineComparison) -> None:
    console = open_console()
    count = max(one.samples for one in found.variants)
    what = f"{count} golden samples" if found.data is None else f"{count} samples of {found.data}"
    title = f"{found.model} release {found.release}, {what}: {found.url} against here ({found.here})"
    console.print(Text(title), soft_wrap=True)
    rows = [(one, one.verdict != "not_compared") for one in found.variants]
    columns = (
        Column("variant", [one.variant for one, _ in rows], is_name=True),
        Column("outputs", [_WORDS[one.verdict] for one, _ in rows], is_word=True),
        Column("max abs", [f"{one.max_abs:.3g}" if there else "" for one, there in rows]),
        Column("allowed", [_allowed(one.max_abs_allowed) for one, _ in rows]),
        Column("in steps", ["" if one.steps is None else f"{one.steps:.3g}" for one, _ in rows], leaves=1),
        Column(
            "values off", [f"{one.differing_share:.1%}" if there else "" for one, there in rows], leaves=2
        ),
    )
    print_table(console, columns, [_STYLES.get(one.verdict, "") for one, _ in rows])
    for one, there in rows:
        if one.reason is not None:
            console.print(Text(f"{one.variant}: {one.reason}"), soft_wrap=True)
        if there and one.engine_here != one.engine_there:
            console.print(
                Text(
                    f"{one.variant}: {one.runtime} {one.engine_here} here, {one.engine_there} there", "yellow"
                ),
                soft_wrap=True,
            )


def _allowed(max_abs: float | None) -> str:
    return "" if max_abs is None else f"{max_abs:.3g}" if max_abs else "none"
