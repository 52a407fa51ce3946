"""``edgeml releases``: what was published, and what is withdrawn."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from edgeml.commands.json_output import json_option, print_json
from edgeml.figures import readable_size
from edgeml.terminal import printable
from edgeml_devices.connection import Connection, server_options
from edgeml_devices.lazy_group import LazyGroup
from edgeml_devices.operator.consent import ask
from edgeml_devices.operator.shown import ago, moment

_MODEL = click.argument("model")
_RELEASE = click.argument("release", type=click.IntRange(0))


@click.group(cls=LazyGroup, lazy={"export": "edgeml_devices.repository.publish_cli:export"})
def releases() -> None:
    """See what was published; withdraw, fetch or export a release.

    \b
    Examples:
      edgeml releases list kws
      edgeml releases show kws 3
      edgeml releases withdraw kws 3
    """  # noqa: D301 - \b is click's mark for text that keeps its lines


@releases.command(name="list")
@click.argument("model", required=False)
@server_options
@json_option
def list_releases(model: str | None, connection: Connection, as_json: bool) -> None:
    """List releases, of one model or all, the newest first.

    \b
    Examples:
      edgeml releases list
      edgeml releases list kws --json
    """  # noqa: D301 - as above
    from edgeml_devices.api_client import endpoint

    with connection.open() as client:
        path = "/v1/releases" if model is None else endpoint("releases", model)
        found = list(client.pages(path, "releases"))
    if as_json:
        print_json({"releases": found})
    elif not found:
        click.echo("no release; edgeml publish BUNDLE makes one")
    else:
        _print_releases(found)


@releases.command()
@_MODEL
@_RELEASE
@server_options
@json_option
def show(model: str, release: int, connection: Connection, as_json: bool) -> None:
    """Show a release: who published it, its variants and their sizes.

    \b
    Example:
      edgeml releases show kws 3
    """  # noqa: D301 - as above
    from edgeml_devices.api_client import endpoint

    with connection.open() as client:
        found = client.get(endpoint("releases", model, release))
    if as_json:
        print_json(found)
    else:
        _print_release(found)


@releases.command()
@_MODEL
@_RELEASE
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    type=click.Path(path_type=Path),
    default=Path(),
    help="The bundle, or a folder for it; by default this one.",
)
@server_options
@json_option
def fetch(model: str, release: int, output: Path, connection: Connection, as_json: bool) -> None:
    """Get a release back as a bundle.

    For edgeml run, compare, deploy and what else takes a bundle. Each file is checked against the manifest.

    \b
    Example:
      edgeml releases fetch kws 3 --output bundles/
    """  # noqa: D301 - as above
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress

    from edgeml_devices.operator.fetching import fetch_bundle

    console = Console(stderr=True)
    bar = Progress(
        "fetch",
        BarColumn(),
        DownloadColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    with connection.open() as client, bar:
        task = bar.add_task("fetch", total=None)
        file = fetch_bundle(
            client,
            model,
            release,
            output,
            progress=lambda done, whole: bar.update(task, completed=done, total=whole),
        )
    if as_json:
        print_json({"model": model, "release": release, "bundle": str(file)})
    else:
        click.echo(file)


@releases.command()
@_MODEL
@_RELEASE
@click.option("--yes", is_flag=True, help="Do not ask.")
@server_options
@json_option
def withdraw(model: str, release: int, yes: bool, connection: Connection, as_json: bool) -> None:
    """Let no device begin with a release any more.

    Rollouts of it stop; devices that run it go on. To have devices refuse it whatever the server says,
    raise the floor (edgeml repo floor).

    \b
    Example:
      edgeml releases withdraw kws 3 --yes
    """  # noqa: D301 - as above
    from edgeml_devices.api_client import endpoint

    if not yes:
        ask(f"Withdraw {model}, release {release}?")
    with connection.open() as client:
        found = client.post(endpoint("releases", model, release, "withdraw"), idempotent=True)
    if as_json:
        print_json(found)
    else:
        click.echo(f"{model}, release {release} is withdrawn")


def _print_releases(found: list[Mapping[str, Any]]) -> None:
    from edgeml.terminal import Column, open_console, print_table

    now = time.time()
    columns = [
        Column("model", [one["model"] for one in found], is_name=True),
        Column("release", [str(one["release"]) for one in found]),
        Column("size", [readable_size(one["size_bytes"]) for one in found], leaves=1),
        Column("published", [ago(one["published_at"], now) for one in found]),
        Column("by", [printable(one["published_by"]) for one in found], leaves=2, is_word=True),
        Column("family", [one["family"] for one in found], leaves=3, is_word=True),
        Column("", ["withdrawn" if one["withdrawn_at"] else "" for one in found], is_word=True),
    ]
    print_table(open_console(), columns, ["dim" if one["withdrawn_at"] else "" for one in found])


def _print_release(found: Mapping[str, Any]) -> None:
    click.echo(click.style(f"{found['model']}, release {found['release']}", bold=True))
    lines = {
        "published": f"{moment(found['published_at'])} by {found['published_by']}",
        "withdrawn": "" if found["withdrawn_at"] is None else moment(found["withdrawn_at"]),
        "family": found["family"],
        "manifest": found["manifest_sha256"],
        "size": readable_size(found["size_bytes"]),
    }
    for title, value in lines.items():
        if value:
            click.echo(f"{title + ':':<11}{printable(value)}")
    for variant in found["manifest"].get("variants", ()):
        size = readable_size(sum(entry["size_bytes"] for entry in variant["files"]))
        targets = " ".join(variant.get("targets", ()))
        click.echo(printable(f"  {variant['name']:<28} {size:>9}  {targets}"))
