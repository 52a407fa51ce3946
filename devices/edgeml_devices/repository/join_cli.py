"""``edgeml tokens join``: a join token, and the command that enrols a device with it."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from edgeml.commands.json_output import json_option, print_json
from edgeml_devices.connection import Connection, server_options
from edgeml_devices.repository.key_options import keys_option, open_keys
from edgeml_devices.typed_options import read_labels, span_s


@click.command()
@click.option("--label", "labels", metavar="KEY=VALUE", multiple=True, help="A label devices come in with.")
@click.option(
    "--uses", type=click.IntRange(1), default=1, show_default=True, help="How many devices it lets in."
)
@click.option(
    "--ttl", default="1h", show_default=True, metavar="SPAN", help="For how long: 90s, 30m, 1h, 7d."
)
@keys_option
@server_options
@json_option
def join(
    labels: tuple[str, ...],
    uses: int,
    ttl: str,
    keys_folder: Path | None,
    connection: Connection,
    as_json: bool,
) -> None:
    """Let devices in: prints the command that enrols one.

    It holds a join token, shown this once, and the hash of the repository's first root as this machine knows
    it: neither the server nor who stands in between can give the device another one.

    \b
    Example:
      edgeml tokens join --label site=berlin --uses 10 --ttl 1h
    """  # noqa: D301 - as above
    from edgeml_devices.repository.outcome import warn_first_contact
    from edgeml_devices.repository.remote import first_root_sha256, read_remote

    body = {"labels": read_labels(labels), "uses": uses, "ttl_s": span_s(ttl)}
    folder = open_keys(keys_folder)
    with connection.open() as client:
        state = read_remote(client, folder)
        warn_first_contact(state, folder, client)
        root_sha256 = first_root_sha256(client, state)
        made = client.post("/v1/join-tokens", body)
    parts = ["edgeml", "agent", "enrol", "--server", connection.server_url, "--join-token", made["token"]]
    parts += ["--root-sha256", root_sha256]
    if connection.ca_file is not None:
        parts += ["--ca-file", connection.ca_file.name]
    command = shlex.join(parts)
    if as_json:
        print_json(made | {"root_sha256": root_sha256, "command": command})
        return
    click.echo(command)
    devices = "one device" if uses == 1 else f"{uses} devices"
    click.echo(f"run this on the device; it lets in {devices}, for {ttl}, and is not shown again", err=True)
    if connection.ca_file is not None:
        click.echo(f"copy {connection.ca_file} to the device first", err=True)
