"""``edgeml server``: run it, and look after its data."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeml.commands.json_output import json_option, print_json
from edgeml.signals import run_async

if TYPE_CHECKING:
    from edgeml_devices.server.settings import ServerSettings

_FILE = click.Path(path_type=Path, dir_okay=False)


@click.group()
def server() -> None:
    """Devices, releases and rollouts of a fleet, over HTTP."""


def _place(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the two options that say which server's data."""
    for option in (
        click.option(
            "--database",
            metavar="URL",
            envvar="EDGEML_DATABASE",
            default="",
            help="postgresql://USER:PASSWORD@HOST/NAME (EDGEML_DATABASE); by default SQLite in the folder.",
        ),
        click.option(
            "--data",
            metavar="FOLDER",
            envvar="EDGEML_SERVER_DATA",
            type=click.Path(path_type=Path, file_okay=False),
            help="Where the server keeps everything (EDGEML_SERVER_DATA).",
        ),
    ):
        command = option(command)
    return command


@server.command()
@_place
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0: all.")
@click.option(
    "--port", default=8350, show_default=True, type=click.IntRange(0, 65535), help="0: any free port."
)
@click.option("--tls-cert", metavar="FILE", type=_FILE, help="Certificate with its chain, PEM.")
@click.option("--tls-key", metavar="FILE", type=_FILE, help="The certificate's key, PEM.")
@click.option("--behind-proxy", is_flag=True, help="Believe the X-Forwarded headers of whoever connects.")
@click.option(
    "--keep-health-days",
    default=14.0,
    show_default=True,
    type=click.FloatRange(0.1),
    help="Health of devices.",
)
@click.option(
    "--keep-events-days",
    default=90.0,
    show_default=True,
    type=click.FloatRange(0.1),
    help="Events of devices.",
)
@click.option("--alert-rules", metavar="FILE", type=_FILE, help="Alert rules, YAML as Prometheus has them.")
@click.option("--alert-receivers", metavar="FILE", type=_FILE, help="Who hears of alerts, TOML.")
@click.option(
    "--keep-telemetry-days",
    default=30.0,
    show_default=True,
    type=click.FloatRange(1),
    help="Windows, samples.",
)
@click.option(
    "--keep-telemetry-hours-days",
    default=400.0,
    show_default=True,
    type=click.FloatRange(1),
    help="Hourly sums.",
)
@click.option(
    "--workers",
    default=1,
    show_default=True,
    type=click.IntRange(1, 64),
    help="Processes; with PostgreSQL only.",
)
def run(data: Path | None, database: str, **options: Any) -> None:
    """Run the server until it is told to end (Ctrl+C, SIGTERM).

    The first start makes the data folder and prints an admin token, once.

    \b
    Examples:
      edgeml server run
      edgeml server run --host 0.0.0.0 --tls-cert server.pem --tls-key server.key
      edgeml server run --database postgresql://edgeml@db/edgeml --workers 4 --behind-proxy
    """  # noqa: D301 - \b is for click
    import gc

    gc.disable()  # until it serves: an eighth of the start went into looks at modules that all stay
    from edgeml_devices.connection import is_unheard
    from edgeml_devices.server import process
    from edgeml_devices.server.settings import ServerSettings

    settings = ServerSettings(data or _default_data(), database, **options)
    process.check(settings)
    with process.open_socket(settings) as listening, process.only_server(settings):
        first_token = process.prepare(settings)
        address = process.url_of(settings, listening)
        if first_token is not None:
            _greet(process.called_url(settings, listening), first_token)
        if not settings.behind_proxy and not is_unheard(address):
            warning = click.style("warning:", fg="yellow", bold=True)
            click.echo(
                f"{warning} {address} is not https: anyone on the way can read tokens; "
                "give --tls-cert and --tls-key, or --behind-proxy",
                err=True,
            )
        click.echo(f"edgeml server listens on {address}; data in {settings.data}")
        if settings.workers == 1:
            process.serve(settings, listening)
        else:
            process.supervise(settings, listening)


def _greet(address: str, token: str) -> None:
    click.echo(
        "This is the admin token. It is shown once:\n\n"
        f"  export EDGEML_SERVER={address}\n"
        f"  export EDGEML_TOKEN={token}\n\n"
        "Next, with these two set:\n\n"
        "  edgeml repo init            # keys of the signed repository\n"
        "  edgeml publish BUNDLE       # a release\n"
        "  edgeml tokens join          # lets devices in\n"
    )


@server.command()
@_place
@json_option
def migrate(data: Path | None, database: str, as_json: bool) -> None:
    """Bring the database's tables to this version.

    The server does so itself when it starts.

    \b
    Example:
      edgeml server migrate --data /var/lib/edgeml-server
    """  # noqa: D301 - as above
    settings = _settings(data, database)

    async def run() -> tuple[str | None, str]:
        from edgeml_devices.server.database import Database
        from edgeml_devices.server.migrate import migrate

        opened = await Database.reach(settings.url)
        try:
            return await migrate(opened)
        finally:
            await opened.close()

    before, now = run_async(run())
    if as_json:
        print_json({"before": before, "now": now})
    else:
        click.echo(
            f"the tables are at step {now}" + ("" if before == now else f", before: {before or 'none'}")
        )


@server.command()
@_place
@click.option("--name", help="Whose it is; the audit log shows it. By default console-TIME.")
@json_option
def token(data: Path | None, database: str, name: str | None, as_json: bool) -> None:
    """Make an admin token, on the server's machine: for when it was lost.

    \b
    Example:
      edgeml server token --name alice
    """  # noqa: D301 - as above
    from edgeml_devices.server import auth

    settings = _settings(data, database)
    name = name or f"console-{datetime.now(UTC):%Y%m%d-%H%M%S}"

    async def make() -> tuple[str, str]:
        from edgeml_devices.server.database import Database

        opened = await Database.reach(settings.url)
        try:
            async with opened.writing() as transaction:
                return await auth.make_token(transaction, "server", name, "admin")
        finally:
            await opened.close()

    id_, secret = run_async(make())
    if as_json:
        print_json({"id": id_, "name": name, "role": "admin", "token": secret})
    else:
        click.echo(secret)


@server.command()
@_place
@click.argument("file", metavar="FILE", type=_FILE)
@click.option("--telemetry", is_flag=True, help="Telemetry, too.")
@json_option
def backup(data: Path | None, database: str, file: Path, telemetry: bool, as_json: bool) -> None:
    """Write tables, blobs and the server's keys to one file. The server may run meanwhile.

    Telemetry is in it with --telemetry, and can be restored to the same kind of database. A server that was
    restored without it goes on with what devices send.
    Whoever has the file can sign as the server: keep it as you keep the server.

    \b
    Example:
      edgeml server backup edgeml-2026-11-25.tar
    """  # noqa: D301 - as above
    from edgeml.figures import readable_size
    from edgeml_devices.server.backup import back_up

    size_bytes = run_async(back_up(_settings(data, database), file, telemetry=telemetry))
    if as_json:
        print_json({"file": str(file), "size_bytes": size_bytes, "telemetry": telemetry})
    else:
        click.echo(f"{file}: {readable_size(size_bytes)}, {'with' if telemetry else 'without'} telemetry")


@server.command()
@_place
@click.argument("file", metavar="FILE", type=_FILE)
@json_option
def restore(data: Path | None, database: str, file: Path, as_json: bool) -> None:
    """Fill an empty folder and an empty database from a back-up.

    Of whichever kind of database.

    \b
    Examples:
      edgeml server restore edgeml-2026-11-25.tar --data /var/lib/edgeml-server
      edgeml server restore edgeml-2026-11-25.tar --database postgresql://edgeml@db/edgeml
    """  # noqa: D301 - as above
    from edgeml.errors import UsageError
    from edgeml_devices.server.backup import restore
    from edgeml_devices.server.settings import ServerSettings

    if not file.is_file():
        raise UsageError(f"no such file: {file}")
    settings = ServerSettings(data or _default_data(), database)
    done = run_async(restore(settings, file))
    if as_json:
        shape = {
            "created_at": done.created_at,
            "rows": done.rows,
            "blobs": done.blobs,
            "roles": list(done.roles),
            "revoked_join_tokens": done.join_tokens,
            "telemetry": done.telemetry,
        }
        print_json({"folder": str(settings.data)} | shape)
        return
    made = datetime.fromtimestamp(done.created_at, UTC)
    click.echo(f"{settings.data}: {done.rows} rows and {done.blobs} blobs, as of {made:%Y-%m-%d %H:%M} UTC")
    if done.telemetry is False:
        click.echo("Telemetry was left out: it is of another kind of database.")
    click.echo("Nothing is known of what happened after that. Start the server, then:")
    if done.roles:
        click.echo(
            "  edgeml repo restore     where releases were published: gives back what was signed since"
        )
    click.echo("  edgeml tokens list      revoke again what was revoked since")
    click.echo(
        "  edgeml devices list     retire again what was retired since; devices enrolled since enrol anew\n"
        "  edgeml audit verify --after-restore     where the log was checked before"
    )
    if done.join_tokens:
        click.echo(f"{done.join_tokens} open join tokens were revoked: they may have been used up since")


def _settings(data: Path | None, database: str) -> ServerSettings:
    """Give the settings of a server that was started before."""
    from edgeml.errors import UsageError
    from edgeml_devices.server.settings import ServerSettings

    settings = ServerSettings(data or _default_data(), database)
    if not settings.data.is_dir():
        raise UsageError(f"no server's data in {settings.data}; give its folder (--data) or start it (run)")
    return settings


def _default_data() -> Path:
    if os.geteuid() == 0:
        return Path("/var/lib/edgeml-server")
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "edgeml-server"
