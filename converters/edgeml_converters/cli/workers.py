"""``edgeml workers``: isolated frameworks, installed only when asked for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeml.commands.json_output import json_option, print_json

if TYPE_CHECKING:
    from rich.status import Status


def _names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001 - click's signature
    from edgeml_converters.workers.catalogue import WORKERS

    return [name for name in WORKERS if name.startswith(incomplete)]


@click.group()
def workers() -> None:
    """List, install and remove isolated frameworks.

    Some conversions need TensorFlow, PyTorch, Keras or onnx2tf; each lives in an environment of its own.

    \b
    Examples:
      edgeml workers list
      edgeml workers install onnx2tf
    """  # noqa: D301 - \b is click's mark for text that keeps its lines


@workers.command("list")
@json_option
def list_(as_json: bool) -> None:
    """List the workers, what each is for and whether it can be used.

    \b
    Examples:
      edgeml workers list
      edgeml workers list --json
    """  # noqa: D301 - as above
    from edgeml_converters.workers.catalogue import WORKERS, status, workers_dir, workers_dir_origin
    from edgeml_converters.workers.install import size_bytes

    found = [(worker, status(name)) for name, worker in WORKERS.items()]
    if as_json:
        rows = [
            {
                "name": state.name,
                "state": state.state,
                "usable": state.usable,
                "reason": state.reason,
                "purpose": worker.purpose,
                "python": str(state.python) if state.python else None,
                "size_bytes": size_bytes(state.name),
            }
            for worker, state in found
        ]
        place = {"path": str(workers_dir()), "origin": workers_dir_origin()}
        print_json({"workers_dir": place, "workers": rows})
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for column in ("worker", "state", "for", "where, or what is wrong"):
        table.add_column(column)
    for worker, state in found:
        colour = "green" if state.usable else "yellow" if state.state == "outdated" else ""
        # where a missing one would be is the folder below the table
        detail = "" if state.state == "missing" else state.reason
        table.add_row(Text(state.name, "bold"), Text(state.state, colour), worker.purpose, Text(detail))
    Console().print(table)
    click.echo(f"\nworkers_dir: {workers_dir()} ({workers_dir_origin()})")
    missing = [state.name for _, state in found if not state.usable]
    if missing:
        click.echo(f"Install one: edgeml workers install {missing[0]}")


@workers.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME…", shell_complete=_names)
@click.option(
    "--python",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The interpreter to build the environment with (default: this one).",
)
def install(names: tuple[str, ...], python: Path | None) -> None:
    """Install workers with every package pinned.

    They come through your own pip configuration.
    An interrupted installation leaves nothing. A worker that is there already is left as it is.

    \b
    Examples:
      edgeml workers install tensorflow
      edgeml workers install onnx2tf --python /usr/bin/python3.12
    """  # noqa: D301 - as above
    from rich.console import Console

    from edgeml_converters.workers.catalogue import worker_named
    from edgeml_converters.workers.install import install as install_worker
    from edgeml_converters.workers.install import size_bytes

    for name in names:
        worker_named(name)
    console = Console(stderr=True)
    for name in names:
        with console.status(f"{name}: starting") as line:

            def show(text: str, name: str = name, line: Status = line) -> None:
                line.update(f"{name}: {text}")

            place = install_worker(name, python=python, progress=show)
        click.echo(f"{name}: {place}, {size_bytes(name) / 1e6:.0f} MB")


@workers.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME…", shell_complete=_names)
def remove(names: tuple[str, ...]) -> None:
    """Remove installed workers.

    \b
    Examples:
      edgeml workers remove tensorflow
    """  # noqa: D301 - as above
    from edgeml_converters.workers.install import remove as remove_worker

    for name in names:
        click.echo(f"{name}: {'removed' if remove_worker(name) else 'was not installed'}")
