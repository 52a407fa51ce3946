"""``edgeml alerts check``: read rules and receivers as the server does, without one."""

from __future__ import annotations

from pathlib import Path

import click

from edgeml.commands.json_output import json_option, print_json


@click.command()
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@json_option
def check(files: tuple[Path, ...], as_json: bool) -> None:
    """Check files of rules (YAML) and of receivers (.toml). Needs no server.

    \b
    Example:
      edgeml alerts check rules.yml receivers.toml
    """  # noqa: D301 - \b is click's mark for text that keeps its lines
    from edgeml_devices.server.alerts.receivers import read_receivers
    from edgeml_devices.server.alerts.rules import read_rules

    found: dict[str, list[str]] = {}
    for file in files:
        if file.suffix == ".toml":
            found[str(file)] = [one.name for one in read_receivers(file).receivers]
        else:
            found[str(file)] = [one.name for one in read_rules(file)]
    if as_json:
        print_json({"files": found})
        return
    for name, names in found.items():
        click.echo(f"{name}: {', '.join(names) or 'nothing in it'}")
