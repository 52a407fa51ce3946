"""``edgeml audit verify``: the log's hash chain, against the head that the server signed."""

from __future__ import annotations

from pathlib import Path

import click

from edgeml.commands.json_output import json_option, print_json
from edgeml_devices.connection import Connection, server_options
from edgeml_devices.repository.key_options import keys_option, open_keys


@click.command()
@click.option(
    "--after-restore",
    is_flag=True,
    help="The server was restored from a back-up: do not ask for what this machine saw before.",
)
@keys_option
@server_options
@json_option
@click.pass_context
def verify(
    ctx: click.Context,
    after_restore: bool,
    keys_folder: Path | None,
    connection: Connection,
    as_json: bool,
) -> None:
    """Check that nobody changed the audit log.

    Computes the hash chain from the rows and compares it with the head that the server signed last, and
    with the head that this machine saw at its last check. Exit code 1 if something differs.

    \b
    Examples:
      edgeml audit verify
      edgeml audit verify --json | jq .faults
    """  # noqa: D301 - \b is click's mark for text that keeps its lines
    from edgeml_devices.repository.audit_check import check_audit

    folder = open_keys(keys_folder)
    with connection.open() as client:
        found = check_audit(client, folder.trust, after_restore=after_restore)
    if as_json:
        print_json(
            {
                "status": "changed" if found.faults else "ok",
                "rows": found.rows,
                "head": {"id": found.rows, "sha256": found.sha256},
                "signed_head": found.signed_id,
                "faults": found.faults,
            }
        )
    else:
        for fault in found.faults:
            click.echo(f"{click.style('changed:', fg='red', bold=True)} {fault}", err=True)
        if not found.faults:
            click.echo(f"{found.rows} rows, all as they were written; signed up to row {found.signed_id}")
    if found.faults:
        ctx.exit(1)
