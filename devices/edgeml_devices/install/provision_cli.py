"""``edgeml devices provision``: edgeml, and the agent, onto a bare board."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeml.commands.json_output import json_option, print_json
from edgeml.terminal import printable

if TYPE_CHECKING:
    from edgeml_devices.install.provision import Join

_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


@click.command(short_help="Put edgeml and its agent on a bare board.")
@click.argument("url")
@click.option(
    "--wheels",
    "wheels_folder",
    metavar="DIR",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Send these wheels; what is not among them comes from the device's own package index.",
)
@click.option("--index-free", is_flag=True, help="Use nothing but --wheels: the device needs no network.")
@click.option(
    "--prefix", metavar="DIR", help="Where to; by default /opt/edgeml, ~/.local/share/edgeml for users."
)
@click.option("--home", metavar="DIR", help="The agent's EDGEML_HOME; by default /var/lib/edgeml for root.")
@click.option("--server", "join_server", metavar="URL", help="Let the agent join this server.")
@click.option("--join-token", metavar="TOKEN", help="From `edgeml tokens join`; - reads stdin.")
@click.option("--name", metavar="NAME", help="Wanted name of the device; by default its host name.")
@click.option("--label", "labels", metavar="KEY=VALUE", multiple=True, help="A label; may be repeated.")
@click.option("--root", type=_FILE, help="The repository's first root metadata, to be copied there.")
@click.option("--root-sha256", metavar="HEX", help="Hash of the first root metadata that the server gives.")
@click.option(
    "--ca-file", "join_ca", type=_FILE, help="PEM file of the authorities that the agent is to trust."
)
@json_option
def provision(
    url: str,
    wheels_folder: Path | None,
    index_free: bool,
    prefix: str | None,
    home: str | None,
    join_server: str | None,
    join_token: str | None,
    name: str | None,
    labels: tuple[str, ...],
    root: Path | None,
    root_sha256: str | None,
    join_ca: Path | None,
    as_json: bool,
) -> None:
    """Put edgeml on a board that has Python 3.11 and nothing else.

    URL is ssh://USER@HOST, serial:/dev/ttyUSB0, or local:. It is installed beside what was there and switched
    to once it works; the same command again changes nothing. With --server and --join-token the agent joins,
    and becomes a systemd service where the user is root.

    \b
    Examples:
      edgeml devices provision ssh://root@10.0.0.7
      edgeml devices provision ssh://pi@10.0.0.7 --wheels wheels/ --index-free
      edgeml devices provision ssh://root@pi --server https://fleet.example --join-token - --root root.json
    """  # noqa: D301 - \b is click's mark for text that keeps its lines
    if index_free and wheels_folder is None:
        raise click.UsageError("--index-free needs --wheels DIR")
    join = _join(join_server, join_token, name, labels, root, root_sha256, join_ca)

    from edgeml import plugins
    from edgeml_devices.install.provision import Provisioner
    from edgeml_devices.install.wheels import read_wheels

    wheels = () if wheels_folder is None else read_wheels(wheels_folder)
    with plugins.transport(url) as transport:
        provisioner = Provisioner(transport, lambda text: click.echo(f"{url}  {printable(text)}", err=True))
        board = provisioner.look(prefix, home)
        done = provisioner.provision(board, wheels, index_free=index_free, join=join)
    if as_json:
        from dataclasses import asdict

        print_json({"url": url} | asdict(done))
        return
    click.echo(printable(f"{url}  edgeml {done.version} in {done.prefix}/bin"))
    if done.agent == "enrolled":
        start = f"EDGEML_HOME={board.home} {done.prefix}/bin/edgeml agent run"
        click.echo(f"Start the agent there: {printable(start)}")


def _join(
    server: str | None,
    token: str | None,
    name: str | None,
    labels: tuple[str, ...],
    root: Path | None,
    root_sha256: str | None,
    ca_file: Path | None,
) -> Join | None:
    if server is None and token is None:
        return None
    if server is None or token is None:
        raise click.UsageError("--server and --join-token go together")
    if root is None and root_sha256 is None:
        raise click.UsageError("give --root FILE or --root-sha256 HEX: whom the device trusts from the start")
    import sys

    from edgeml_devices.install.provision import Join

    secret = sys.stdin.readline().strip() if token == "-" else token  # noqa: S105 - a mark, not a secret
    options = [] if root_sha256 is None else ["--root-sha256", root_sha256]
    options += [] if name is None else ["--name", name]
    for label in labels:
        options += ["--label", label]
    return Join(server, secret, tuple(options), root, ca_file)
