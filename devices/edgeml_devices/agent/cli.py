"""``edgeml agent``: join a server, run, look, install by hand, become a service."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeml.commands.json_output import json_option, print_json

if TYPE_CHECKING:
    from edgeml_devices.agent.home import Home
    from edgeml_devices.agent.record import StateRecord

_FILE = click.Path(path_type=Path, dir_okay=False)
_PATH = click.Path(path_type=Path, exists=True)


@click.group()
def agent() -> None:
    """Keep this device's models as a server wants them.

    Its files are in EDGEML_HOME; /var/lib/edgeml for the service.

    \b
    Examples:
      edgeml agent enrol --server https://fleet.example --join-token TOKEN --root-sha256 HEX
      edgeml agent run
      edgeml agent status
    """  # noqa: D301 - \b is click's mark for text that keeps its lines


@agent.command()
@click.option("--server", metavar="URL", envvar="EDGEML_SERVER", required=True, help="The server's address.")
@click.option(
    "--join-token", metavar="TOKEN", required=True, help="From `edgeml tokens join`; - reads stdin."
)
@click.option("--name", default="", help="Wanted name; by default the host's.")
@click.option("--label", "labels", metavar="KEY=VALUE", multiple=True, help="A label; may be repeated.")
@click.option("--ca-file", type=_FILE, envvar="EDGEML_CA_FILE", help="PEM file of the authorities to trust.")
@click.option("--root", type=_FILE, help="The repository's first root metadata.")
@click.option("--root-sha256", metavar="HEX", help="Hash of the first root metadata that the server gives.")
@click.option("--trust-first-root", is_flag=True, help="Take the server's word for the first root.")
@json_option
def enrol(
    server: str,
    join_token: str,
    name: str,
    labels: tuple[str, ...],
    ca_file: Path | None,
    root: Path | None,
    root_sha256: str | None,
    trust_first_root: bool,
    as_json: bool,
) -> None:
    """Join a server.

    Run it again after an error: the device stays one.

    \b
    Example:
      edgeml agent enrol --server https://fleet.example --join-token - --root root.json --label site=hall-2
    """  # noqa: D301 - as above
    import platform
    import sys

    from edgeml_devices.agent import identity
    from edgeml_devices.messages import EnrolRequest

    first = identity.FirstRoot(root, root_sha256, trust_first_root)
    token = sys.stdin.readline().strip() if join_token == "-" else join_token  # noqa: S105
    request = EnrolRequest(token, "", name or platform.node(), None, _labels(labels))
    joined = identity.enrol(_home(), request, first, server, ca_file)
    if name and joined.name != name:
        click.echo(
            f"the server knows this device as {joined.name}, not as {name}, which was not taken; to change "
            f"it: edgeml devices rename {joined.name} {name}",
            err=True,
        )
    if as_json:
        print_json({"device_id": joined.device_id, "name": joined.name, "server": joined.server})
    else:
        click.echo(f"{joined.name} belongs to {joined.server} now (device {joined.device_id})")


@agent.command()
@click.option("--verbose", is_flag=True, help="Log what is tried, too.")
def run(verbose: bool) -> None:
    """Run the agent until it is told to stop.

    \b
    Example:
      edgeml agent run --verbose
    """  # noqa: D301 - as above
    import logging
    import sys

    # 9 and 8 MB that stay: what would load them where they are does without them where they are not
    for name in ("cryptography", "msgspec"):
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]
    from edgeml_devices.agent.config import read_config
    from edgeml_devices.agent.identity import read_identity
    from edgeml_devices.agent.service import Service, run_service

    home = _home()
    identity, config = read_identity(home), read_config(home.config)
    # the journal has the time; what other libraries log is of no use here
    logging.basicConfig(format="%(levelname)s %(message)s", level=logging.WARNING)
    logging.getLogger("edgeml").setLevel(logging.DEBUG if verbose else logging.INFO)
    logging.getLogger("tuf").setLevel(logging.ERROR)
    run_service(Service(home, config, identity))


@agent.command()
@json_option
def status(as_json: bool) -> None:
    """Show what runs, what is on its way, and the last events.

    Reads files only; the agent may run or not.

    \b
    Examples:
      edgeml agent status
      edgeml agent status --json | jq '.models[].running'
    """  # noqa: D301 - as above
    from edgeml_devices.agent.show import device_json, print_device

    shown = device_json(_home())
    if as_json:
        print_json(shown)
    else:
        print_device(shown)


@agent.command("install-bundle")
@click.argument("path", metavar="FOLDER|BUNDLE", type=_PATH)
@click.option("--root", type=_FILE, help="The repository's first root metadata, where none is known yet.")
@click.option("--root-sha256", metavar="HEX", help="Hash of the first root metadata that FOLDER holds.")
@click.option("--unsigned", is_flag=True, help="Take a .edgeml file that nobody signed.")
@json_option
@click.pass_context
def install_bundle(
    ctx: click.Context,
    path: Path,
    root: Path | None,
    root_sha256: str | None,
    unsigned: bool,
    as_json: bool,
) -> None:
    """Install a release that was carried here.

    FOLDER is what `edgeml releases export` wrote; its signatures are checked as a server's are. A running
    agent takes it over. A bundle without signatures needs --unsigned, and a device that trusts no repository.
    Exit code 1 if the release was not committed.

    \b
    Examples:
      edgeml agent install-bundle /media/usb/kws-3
      edgeml agent install-bundle kws-3.edgeml --unsigned
    """  # noqa: D301 - as above
    from edgeml_devices.agent.carry import install, signed_release, trust_carried_root, unsigned_release
    from edgeml_devices.agent.config import read_config
    from edgeml_devices.agent.desired import put_in_inbox
    from edgeml_devices.agent.lock import agent_process
    from edgeml_devices.agent.trust import Trust
    from edgeml_devices.messages import Result

    if sum((root is not None, root_sha256 is not None, unsigned)) > 1:
        raise click.UsageError("give one of --root, --root-sha256 and --unsigned")
    home = _home()
    trust = Trust(home.trust)
    if root is not None and not trust.is_pinned:
        trust.pin(root.read_bytes())
    elif root_sha256 is not None and not trust.is_pinned:
        trust_carried_root(trust, path, root_sha256)
    origin, carried = unsigned_release(trust, path) if unsigned else signed_release(trust, path)
    if agent_process(home) is not None:
        if unsigned:
            raise click.UsageError("an agent runs here, which takes signed releases only")
        put_in_inbox(home, path)
        _say(as_json, {"model": carried.model, "release": carried.release, "handed_over": True})
        return
    told = _tell_nobody if as_json else _tell
    record = install(home, read_config(home.config), origin, carried, told)
    done = record.result is Result.SUCCESSFUL
    if as_json:
        print_json(
            {
                "model": record.model,
                "release": record.target,
                "handed_over": False,
                "result": record.result,
                "reason": record.reason,
                "detail": record.detail,
            }
        )
    if not done:
        ctx.exit(1)


@agent.command("install")
@click.option("--home", type=click.Path(path_type=Path), help="Its files; by default /var/lib/edgeml.")
@click.option("--user", default="edgeml", show_default=True, help="Who it runs as; made if missing.")
@click.option("--unit-file", type=_FILE, help="Where the unit goes; by default systemd's folder.")
@click.option("--print", "only_print", is_flag=True, help="Print the unit and change nothing.")
def install_command(home: Path | None, user: str, unit_file: Path | None, only_print: bool) -> None:
    """Make the agent a systemd service.

    Makes the user, the folder and the unit; needs no network. Run it as root.

    \b
    Examples:
      edgeml agent install --print
      sudo edgeml agent install
    """  # noqa: D301 - as above
    import sys

    from edgeml_devices.agent.unit import SERVICE_HOME, UNIT_FILE, install_service, unit_text

    place = (home or SERVICE_HOME).absolute()
    if only_print:
        click.echo(unit_text(place, user, sys.executable), nl=False)
        return
    unit = unit_file or UNIT_FILE
    install_service(place, user, unit)
    click.echo(f"{unit}, running as {user} in {place}. Next:")
    click.echo(f"  sudo -u {user} EDGEML_HOME={place} edgeml agent enrol --server URL --join-token TOKEN …")
    click.echo(f"  systemctl enable --now {unit.stem}")


def _home() -> Home:
    from edgeml.settings import settings
    from edgeml_devices.agent.home import Home, require_folder

    home = Home(settings().home.absolute())
    require_folder(home)
    return home


def _labels(pairs: tuple[str, ...]) -> dict[str, str]:
    found: dict[str, str] = {}
    for pair in pairs:
        key, mark, value = pair.partition("=")
        if not mark or not key:
            raise click.UsageError(f"--label {pair}: write KEY=VALUE")
        found[key] = value
    return found


def _tell(record: StateRecord) -> None:
    why = f" ({record.reason}: {record.detail})" if record.result is not None and record.reason else ""
    click.echo(f"{record.model} {record.target}: {record.state}{why}")


def _tell_nobody(record: StateRecord) -> None:
    """Leave standard output to the one object."""


def _say(as_json: bool, shape: dict[str, Any]) -> None:
    if as_json:
        print_json(shape)
    else:
        click.echo(f"{shape['model']} {shape['release']}: handed to the agent; see edgeml agent status")
