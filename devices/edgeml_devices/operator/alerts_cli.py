"""``edgeml alerts``: what fires, what is pending, and whether a file of rules can be read."""

from __future__ import annotations

import time
from typing import Any

import click

from edgeml.commands.json_output import json_option, print_json
from edgeml.terminal import Column, open_console, print_table, printable
from edgeml_devices.connection import Connection, server_options
from edgeml_devices.lazy_group import LazyGroup
from edgeml_devices.operator.shown import ago


@click.group(cls=LazyGroup, lazy={"check": "edgeml_devices.server.alerts.check_cli:check"})
def alerts() -> None:
    """See what alerts say, and check rules before a server gets them.

    \b
    Examples:
      edgeml alerts list
      edgeml alerts check rules.yml
    """  # noqa: D301 - \b is click's mark for text that keeps its lines


@alerts.command(name="list")
@click.option("--firing", is_flag=True, help="Those that fire alone; exit code 3 if there is one.")
@server_options
@json_option
@click.pass_context
def list_alerts(ctx: click.Context, firing: bool, connection: Connection, as_json: bool) -> None:
    """List rules and their alerts.

    \b
    Examples:
      edgeml alerts list
      edgeml alerts list --firing --json
    """  # noqa: D301 - as above
    with connection.open() as client:
        found = client.get("/v1/alerts")
    shown = [one for one in found["alerts"] if not firing or one["state"] == "firing"]
    if as_json:
        print_json(found | {"alerts": shown})
    else:
        _print(found, shown)
    if firing and shown:
        ctx.exit(3)


def _print(found: dict[str, Any], shown: list[dict[str, Any]]) -> None:
    now = time.time()
    for problem in found["problems"]:
        click.echo(f"{click.style('problem:', fg='red', bold=True)} {printable(problem)}", err=True)
    if not found["rules"]:
        click.echo("the server has no alert rules; give it some: edgeml server run --alert-rules FILE")
        return
    if shown:
        columns = [
            Column("alert", [one["rule"] for one in shown], is_name=True),
            Column("state", [one["state"] for one in shown], is_word=True),
            Column("of", [_labels(one["labels"]) for one in shown], is_name=True),
            Column("value", [f"{one['value']:.4g}" for one in shown]),
            Column("since", [ago(one["since"], now) for one in shown], leaves=1),
        ]
        styles = {"firing": "red", "pending": "yellow", "resolved": "dim"}
        print_table(open_console(), columns, [styles[one["state"]] for one in shown])
    else:
        click.echo(f"nothing fires; {len(found['rules'])} rules are watched")
    for rule in found["rules"]:
        if rule["error"]:
            click.echo(f"{rule['name']} cannot be evaluated: {printable(rule['error'])}", err=True)
        if rule["left_out"]:
            click.echo(f"{rule['name']}: {rule['left_out']} more instances are not held", err=True)
    for one in found["undelivered"]:
        what = "was given up" if one["outcome"] else f"waits, tried {one['attempts']} times"
        click.echo(
            f"a message about {one['rule']} to {one['receiver']} {what}: {printable(one['error'])}", err=True
        )


def _labels(labels: dict[str, str]) -> str:
    return printable(", ".join(f"{key}={value}" for key, value in labels.items())) or "the fleet"
