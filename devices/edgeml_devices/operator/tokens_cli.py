"""``edgeml tokens``: who may do what, and how devices are let in."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import click

from edgeml.commands.json_output import json_option, print_json
from edgeml.terminal import printable
from edgeml_devices.connection import Connection, server_options
from edgeml_devices.lazy_group import LazyGroup
from edgeml_devices.operator.shown import ago, show_labels, span


@click.group(cls=LazyGroup, lazy={"join": "edgeml_devices.repository.join_cli:join"})
def tokens() -> None:
    """Let people, programs and devices in. Needs an admin's token.

    \b
    Examples:
      edgeml tokens join --label site=berlin --uses 10 --ttl 1h
      edgeml tokens create ci --role operator
      edgeml tokens list
    """  # noqa: D301 - \b is click's mark for text that keeps its lines


@tokens.command()
@click.argument("name")
@click.option(
    "--role",
    type=click.Choice(["admin", "operator", "viewer"]),
    required=True,
    help="viewer reads; operator publishes and rolls out; admin does all.",
)
@server_options
@json_option
def create(name: str, role: str, connection: Connection, as_json: bool) -> None:
    """Make a token for a person or a program. It is shown once.

    \b
    Example:
      edgeml tokens create ci --role operator
    """  # noqa: D301 - as above
    with connection.open() as client:
        made = client.post("/v1/tokens", {"name": name, "role": role})
    if as_json:
        print_json(made)
    else:
        click.echo(made["token"])
        click.echo(f"{name}, {role}: the server keeps only its hash; set it as EDGEML_TOKEN", err=True)


@tokens.command(name="list")
@server_options
@json_option
def list_tokens(connection: Connection, as_json: bool) -> None:
    """List tokens and join tokens; their secrets are known to nobody.

    \b
    Example:
      edgeml tokens list --json
    """  # noqa: D301 - as above
    with connection.open() as client:
        people = list(client.pages("/v1/tokens", "tokens"))
        joins = list(client.pages("/v1/join-tokens", "join_tokens"))
    if as_json:
        print_json({"tokens": people, "join_tokens": joins})
    else:
        _print_tokens(people, joins)


@tokens.command()
@click.argument("name", metavar="NAME|ID")
@server_options
@json_option
def revoke(name: str, connection: Connection, as_json: bool) -> None:
    """Refuse a token or join token from now on.

    Devices that a join token let in stay.

    \b
    Example:
      edgeml tokens revoke ci
    """  # noqa: D301 - as above
    from edgeml_devices.api_answers import RefusedError
    from edgeml_devices.api_client import endpoint

    with connection.open() as client:
        try:
            client.delete(endpoint("tokens", name))
        except RefusedError as error:
            if error.status != 404:  # noqa: PLR2004 - HTTP's
                raise
            client.delete(endpoint("join-tokens", name))
    if as_json:
        print_json({"revoked": name})
    else:
        click.echo(f"{name} is revoked")


def _print_tokens(people: Sequence[Mapping[str, Any]], joins: Sequence[Mapping[str, Any]]) -> None:
    from edgeml.terminal import Column, open_console, print_table

    now, console = time.time(), open_console()
    columns = [
        Column("token", [printable(one["name"]) for one in people], is_name=True),
        Column("role", [one["role"] for one in people], is_word=True),
        Column("made", [ago(one["created_at"], now) for one in people], leaves=1),
        Column("", ["revoked" if one["revoked_at"] else "" for one in people], is_word=True),
    ]
    print_table(console, columns, ["dim" if one["revoked_at"] else "" for one in people])
    if not joins:
        return
    console.print()
    states = [_join_state(one, now) for one in joins]
    columns = [
        Column("join token", [one["id"] for one in joins], is_name=True),
        Column("uses left", [str(one["uses_left"]) for one in joins]),
        Column("labels", [show_labels(one["labels"]) for one in joins], leaves=1, is_word=True),
        Column("", states, is_word=True),
    ]
    print_table(console, columns, ["" if state.startswith("for") else "dim" for state in states])


def _join_state(join_token: Mapping[str, Any], now: float) -> str:
    if join_token["revoked_at"]:
        return "revoked"
    if join_token["expires_at"] <= now:
        return "expired"
    return "used up" if not join_token["uses_left"] else f"for {span(join_token['expires_at'] - now)}"
