"""``edgeml targets``: the hardware profiles that variants are made for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from edgeml import completion
from edgeml.commands.json_output import json_option, print_json

if TYPE_CHECKING:
    from edgeml.targets import Target


@click.command()
@click.argument("name", required=False, shell_complete=completion.targets)
@json_option
def targets(name: str | None, as_json: bool) -> None:
    """List the targets, or show one.

    NAME is a target, `host` (this machine), or the path of a file of yours.
    Your own targets are TOML files in the folder `targets` of EDGEML_HOME.

    \b
    Examples:
      edgeml targets
      edgeml targets raspberry-pi-5
      edgeml targets host --json
    """  # noqa: D301 - \b is click's mark for text that keeps its lines
    from edgeml.targets import host, target
    from edgeml.targets import targets as all_targets

    found = all_targets() if name is None else (target(name),)
    machine = host()
    if as_json:
        print_json({"host": machine.name, "targets": [as_dict(one) for one in found]})
    elif name is None:
        _list(found, machine)
    else:
        _show(found[0])


def as_dict(one: Target) -> dict[str, object]:
    """Give a target in the shape of ``edgeml targets --json``: lists for sets, sorted."""
    from dataclasses import asdict

    return {**asdict(one), "cpu_features": sorted(one.cpu_features)}


def _list(found: tuple[Target, ...], machine: Target) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for column in ("target", "architecture", "cores", "memory", "runs"):
        table.add_column(column, justify="right" if column in {"cores", "memory"} else "left")
    for one in found:
        runs = " ".join([*one.runtimes, *(f"+ {name}" for name in one.accelerators)])
        memory = _memory(one.memory_bytes)
        table.add_row(Text(one.name, "bold"), one.architecture, str(one.cores), memory, runs)
    console = Console()
    console.print(table)
    console.print(Text(f"\nhost: this machine, of class {machine.name} ({machine.title})"), soft_wrap=True)


def _show(one: Target) -> None:
    rows = (
        ("target", one.name),
        ("what", one.title),
        ("architecture", f"{one.architecture}, {one.word_bits}-bit {one.operating_system}"),
        ("cpu", one.cpu),
        ("cores", str(one.cores)),
        ("cpu features", " ".join(sorted(one.cpu_features))),
        ("memory", _memory(one.memory_bytes)),
        ("accelerators", " ".join(one.accelerators)),
        ("runtimes", " ".join(one.runtimes)),
    )
    for key, value in rows:
        if value:
            click.echo(f"{key + ':':<15}{value}")
    for note in one.notes:
        click.echo(f"{'note:':<15}{note}")


def _memory(size_bytes: int) -> str:
    gib = size_bytes / (1 << 30)
    return f"{gib:.0f} GiB" if gib >= 1 else f"{size_bytes >> 20} MiB"
