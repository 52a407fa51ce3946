"""``edgeml publish``: sign a bundle and give it to the server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeml.commands.json_output import json_option, print_json
from edgeml.errors import EdgemlError, ServerError
from edgeml.figures import readable_size
from edgeml_devices.connection import Connection, server_options
from edgeml_devices.repository.key_options import Passphrases, keys_option, open_keys, output_option

if TYPE_CHECKING:
    from edgeml_devices.repository.publish import Published, Watch


@click.command()
@click.argument("path", metavar="BUNDLE", type=click.Path(path_type=Path))
@click.option("--release", type=click.IntRange(0), help="Publish under this number, not the bundle's own.")
@click.option(
    "--export",
    "export_to",
    metavar="FOLDER",
    type=click.Path(path_type=Path),
    help="Then write what a device without network needs.",
)
@output_option
@keys_option
@server_options
@json_option
def publish(
    path: Path,
    release: int | None,
    export_to: Path | None,
    output: Path | None,
    keys_folder: Path | None,
    connection: Connection,
    as_json: bool,
) -> None:
    """Sign a bundle and give it to the server.

    It becomes a release that can be rolled out, with the bundle's own counter as its number. Files that the
    server has already are not sent again; an interrupted run is repeated, and goes on. A number never
    changes what it stands for.

    \b
    Examples:
      edgeml publish kws-3.edgeml
      edgeml publish kws-3.edgeml --release 4 --export usb/kws-4
    """  # noqa: D301 - \b is click's mark for text that keeps its lines
    from datetime import UTC, datetime

    from edgeml_devices.repository import publish as publishing
    from edgeml_devices.repository.outcome import warn_expiry, warn_first_contact
    from edgeml_devices.repository.remote import export_release, make_room, read_remote

    if export_to is not None:
        make_room(export_to)
    folder = open_keys(keys_folder)
    candidate = publishing.open_candidate(path, release)
    with connection.open() as client:
        state = read_remote(client, folder)
        warn_first_contact(state, folder, client)
        with watch_upload() as watch:
            done = publishing.publish(
                candidate, client, folder, Passphrases(), watch, lambda: datetime.now(UTC), output
            )
        if export_to is not None and done.written is None:
            manifest = candidate.manifest
            try:
                export_release(client, folder.trust, manifest.name, manifest.release, export_to)
            except (EdgemlError, OSError) as error:
                again = f"edgeml releases export {manifest.name} {manifest.release} --output {export_to}"
                raise ServerError(
                    f"{candidate} is published, but was not exported: {error}; try again: {again}"
                ) from error
    if as_json:
        print_json(_shape(done, export_to))
    else:
        _tell(done, export_to)
    warn_expiry(state, datetime.now(UTC).timestamp())


@click.command()
@click.argument("model")
@click.argument("release", type=click.IntRange(0))
@click.option(
    "-o",
    "--output",
    metavar="FOLDER",
    type=click.Path(path_type=Path),
    required=True,
    help="A new folder, for a USB stick.",
)
@keys_option
@server_options
@json_option
def export(
    model: str, release: int, output: Path, keys_folder: Path | None, connection: Connection, as_json: bool
) -> None:
    """Write what a device without network needs to install a release.

    Signed metadata, the manifest and all files; the device verifies them as if they came from the server.
    The server's signature on what is current holds for a day: make the export when it is needed.

    \b
    Example:
      edgeml releases export kws 3 --output usb/kws-3
    """  # noqa: D301 - as above
    from edgeml_devices.repository.remote import export_release

    folder = open_keys(keys_folder)
    with connection.open() as client:
        size_bytes = export_release(client, folder.trust, model, release, output)
    if as_json:
        print_json({"model": model, "release": release, "folder": str(output), "size_bytes": size_bytes})
    else:
        click.echo(f"{output}: {model}, release {release}, {readable_size(size_bytes)}")


class _Silent:
    """Shows nothing: there is no terminal."""

    def start(self, total_bytes: int) -> None:
        """Begin."""

    def reach(self, done_bytes: int) -> None:
        """Go on."""


@contextmanager
def watch_upload() -> Iterator[Watch]:
    """Show a bar on a terminal while files are sent."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Silent()
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn

    with Progress(
        "upload", BarColumn(), DownloadColumn(), TimeRemainingColumn(), console=console, transient=True
    ) as progress:
        task = progress.add_task("upload", total=None)

        class Bar:
            def start(self, total_bytes: int) -> None:
                progress.update(task, total=total_bytes)

            def reach(self, done_bytes: int) -> None:
                progress.update(task, completed=done_bytes)

        yield Bar()


def _shape(done: Published, export_to: Path | None) -> dict[str, object]:
    manifest = done.candidate.manifest
    return {
        "model": manifest.name,
        "release": manifest.release,
        "family": done.family,
        "manifest_sha256": done.candidate.sha256,
        "size_bytes": done.candidate.size_bytes,
        "uploaded_files": done.uploaded,
        "uploaded_bytes": done.uploaded_bytes,
        "status": "unsigned" if done.written else "known" if done.was_signed else "published",
        "to_sign": None if done.written is None else str(done.written),
        "export": None if export_to is None or done.written else str(export_to),
    }


def _tell(done: Published, export_to: Path | None) -> None:
    candidate = done.candidate
    sent = f"{done.uploaded} of {len(candidate.blobs)} files sent, {readable_size(done.uploaded_bytes)}"
    if done.written is not None:
        click.echo(f"{candidate}: {sent}; not published yet")
        click.echo(f"{done.written} waits for signatures: edgeml repo sign, then edgeml repo push,")
        click.echo("then this command again, without --output")
        return
    if done.was_signed and not done.uploaded:
        click.echo(f"{candidate}: published before, the server has all of it")
    else:
        what = "listed; it was signed before" if done.was_signed else f"published, signed by {done.family}"
        click.echo(f"{candidate}: {what}; {sent}")
    if export_to is not None:
        click.echo(f"{export_to}: for devices without network")
