"""``--json``: the option, and how its answers and errors are printed. Light to import."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import click

SCHEMA: Final = 1
"""Rises when a key changes its meaning or goes; new keys do not count (docs/reference/json.md)."""

_ASKED: Final = "edgeml.json_asked"
_PRINTED: Final = "edgeml.json_printed"

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")


def print_json(shape: Mapping[str, Any]) -> None:
    """Print an object on stdout, its schema number first; control characters come out escaped."""
    import json

    click.echo(json.dumps({"schema": SCHEMA} | dict(shape), indent=2))
    context = click.get_current_context(silent=True)
    if context is not None:
        context.meta[_PRINTED] = True


def note_json(context: click.Context) -> None:
    """Note, before a command runs, whether ``--json`` stands behind its name."""
    context.meta[_ASKED] = "--json" in context.args


def print_json_error(context: click.Context, kind: str, message: str) -> None:
    """Print ``{"schema", "error": {"type", "message"}}`` in place of the answer that an error prevented.

    Nothing is printed unless ``note_json`` saw the option, nor after an answer: standard output
    holds one object.
    """
    if context.meta.get(_ASKED) and not context.meta.get(_PRINTED):
        print_json({"error": {"type": kind, "message": message}})
