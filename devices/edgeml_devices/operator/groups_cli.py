"""``edgeml groups``: selectors with a name."""

from __future__ import annotations

import click

from edgeml.commands.json_output import json_option, print_json
from edgeml_devices.connection import Connection, server_options


@click.group()
def groups() -> None:
    """Give selectors a name. A device joins and leaves a group by its labels.

    \b
    Examples:
      edgeml groups set canaries 'ring=canary,site in (berlin, lyon)'
      edgeml groups list
    """  # noqa: D301 - \b is click's mark for text that keeps its lines


@groups.command(name="list")
@server_options
@json_option
def list_groups(connection: Connection, as_json: bool) -> None:
    """List groups, and how many devices each has now.

    \b
    Example:
      edgeml groups list --json
    """  # noqa: D301 - as above
    from edgeml.terminal import Column, open_console, print_table

    with connection.open() as client:
        found = list(client.pages("/v1/groups", "groups"))
    if as_json:
        print_json({"groups": found})
    elif not found:
        click.echo("no group; make one: edgeml groups set NAME SELECTOR")
    else:
        columns = [
            Column("group", [one["name"] for one in found], is_name=True),
            Column("devices", [str(one["devices"]) for one in found]),
            Column("selector", [one["selector"] or "all" for one in found], is_word=True),
        ]
        print_table(open_console(), columns)


@groups.command(name="set")
@click.argument("name")
@click.argument("selector")
@server_options
@json_option
def set_group(name: str, selector: str, connection: Connection, as_json: bool) -> None:
    """Make a group, or give it another selector.

    A comma is "and"; keys are labels, or name, id, target. The empty selector chooses all devices.

    \b
    Examples:
      edgeml groups set berlin site=berlin
      edgeml groups set rest 'ring notin (canary, early),!spare'
    """  # noqa: D301 - as above
    from edgeml_devices.api_client import endpoint

    with connection.open() as client:
        found = client.put(endpoint("groups", name), {"selector": selector})
    if as_json:
        print_json(found)
    else:
        click.echo(f"{name}: now {found['devices']} device{'' if found['devices'] == 1 else 's'}")


@groups.command()
@click.argument("name")
@server_options
@json_option
def delete(name: str, connection: Connection, as_json: bool) -> None:
    """Delete a group; its devices stay.

    \b
    Example:
      edgeml groups delete berlin
    """  # noqa: D301 - as above
    from edgeml_devices.api_client import endpoint

    with connection.open() as client:
        client.delete(endpoint("groups", name))
    if as_json:
        print_json({"deleted": name})
    else:
        click.echo(f"{name} is deleted")
