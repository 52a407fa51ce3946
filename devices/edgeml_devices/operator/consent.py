"""Ask before what cannot be taken back."""

from __future__ import annotations

import sys

import click

from edgeml.errors import UsageError


def ask(question: str) -> None:
    """Go on only after a yes.

    Raises:
        UsageError: nobody is there to answer, as in a script.
        click.Abort: the answer is no.
    """
    try:
        click.confirm(question, abort=True, err=True)
    except click.Abort as error:
        if sys.stdin.isatty():
            raise
        click.echo(err=True)
        raise UsageError("nobody said yes, and nothing was changed; in a script give --yes") from error
