"""``--json``: the option, and how its answers are printed. Light to import, as every command does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import click

SCHEMA: Final = 1
"""Rises when a key changes its meaning or goes; new keys do not count (docs/reference/json.md)."""

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")


def print_json(shape: Mapping[str, Any]) -> None:
    """Print an object on stdout, its schema number first; control characters come out escaped."""
    import json

    click.echo(json.dumps({"schema": SCHEMA} | dict(shape), indent=2))
