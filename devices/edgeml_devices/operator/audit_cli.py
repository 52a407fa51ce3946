"""``edgeml audit``: who did what, and whether the log was changed."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping
from typing import Any

import click

from edgeml.commands.json_output import json_option, print_json
from edgeml.terminal import printable
from edgeml_devices.connection import Connection, server_options
from edgeml_devices.lazy_group import LazyGroup
from edgeml_devices.operator.shown import moment


@click.group(cls=LazyGroup, lazy={"verify": "edgeml_devices.repository.audit_verify_cli:verify"})
def audit() -> None:
    """Read the log of who did what, and check that nobody changed it.

    Rows are only ever added, and each covers the one before by its hash. Refusals are in it, too.

    \b
    Examples:
      edgeml audit list --action refused
      edgeml audit verify
    """  # noqa: D301 - \b is click's mark for text that keeps its lines


@audit.command(name="list")
@click.option("--actor", metavar="ACTOR", help="Only what this one did: operator:ci, device:ID, server.")
@click.option("--action", metavar="ACTION", help="Only this: refused, rollout.start, release.publish …")
@click.option("--object", "about", metavar="OBJECT", help="Only about this: kws/3, a device's id …")
@click.option("-n", "--last", type=click.IntRange(1), default=50, show_default=True, help="How many rows.")
@server_options
@json_option
def list_rows(
    actor: str | None,
    action: str | None,
    about: str | None,
    last: int,
    connection: Connection,
    as_json: bool,
) -> None:
    """List what happened, the newest last.

    \b
    Examples:
      edgeml audit list
      edgeml audit list --action refused --last 10
    """  # noqa: D301 - as above
    wanted = {"actor": actor, "action": action, "object": about}
    query: dict[str, str | int] = {"limit": 1000}
    query |= {name: value for name, value in wanted.items() if value is not None}
    with connection.open() as client:
        if len(query) == 1:  # ids are consecutive
            query["after"] = max(0, int(client.get("/v1/audit/head")["id"]) - last)
        rows = list(deque(client.pages("/v1/audit", "audit", query), maxlen=last))
    if as_json:
        print_json({"audit": rows})
    else:
        for row in rows:
            click.echo(_line(row))


def _line(row: Mapping[str, Any]) -> str:
    detail = json.dumps(row["detail"], ensure_ascii=False) if row["detail"] else ""
    text = f"{row['id']:>6}  {moment(row['at'])}  {row['actor']}  {row['action']}  {row['object']}  {detail}"
    return printable(text.rstrip())
