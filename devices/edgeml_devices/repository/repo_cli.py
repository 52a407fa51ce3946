"""``edgeml repo``: make the repository, look at it, and keep its metadata signed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeml.commands.json_output import json_option, print_json
from edgeml.errors import UsageError
from edgeml_devices.connection import Connection, server_options
from edgeml_devices.repository.key_options import (
    Passphrases,
    encrypt_option,
    keys_option,
    new_passphrase,
    open_keys,
    output_option,
)

if TYPE_CHECKING:
    from edgeml_devices.repository.keys import KeyFolder
    from edgeml_devices.repository.state import RepositoryState

_FILE = click.Path(exists=True, path_type=Path)


@click.group()
def repo() -> None:
    """Make and look after the repository of signed releases.

    Its metadata (TUF) says who signs what. root names the keys of all roles; targets says which family of
    keys signs which models; a family's metadata lists its releases. The server signs snapshot and timestamp.

    \b
    Examples:
      edgeml repo init --keys ~/edgeml-keys
      edgeml repo status
      edgeml repo renew targets
    """  # noqa: D301 - \b is click's mark for text that keeps its lines


@repo.command()
@click.option("--family", default="main", show_default=True, help="The first family, and its key's name.")
@click.option(
    "--model", "models", metavar="NAME", multiple=True, help="A model it signs; all models by default."
)
@click.option(
    "--targets-keys", type=click.IntRange(1, 9), default=1, show_default=True, help="Keys of targets."
)
@click.option(
    "--targets-threshold",
    type=click.IntRange(1, 9),
    default=1,
    show_default=True,
    help="How many keys of targets must sign.",
)
@encrypt_option
@keys_option
@server_options
@json_option
def init(
    family: str,
    models: tuple[str, ...],
    targets_keys: int,
    targets_threshold: int,
    encrypt: bool,
    keys_folder: Path | None,
    connection: Connection,
    as_json: bool,
) -> None:
    """Make keys and the first metadata, and give it to the server. Needs an admin's token.

    Interrupted, it goes on with the keys that are there.

    \b
    Examples:
      edgeml repo init --keys ~/edgeml-keys
      edgeml repo init --keys ~/edgeml-keys --family vision --model detector --targets-keys 2 --encrypt
    """  # noqa: D301 - as above
    from datetime import UTC, datetime

    from edgeml_devices.repository import metadata as md
    from edgeml_devices.repository import remote

    folder = open_keys(keys_folder)
    plan = remote.Plan(family, models or (md.ALL_MODELS,), targets_keys, targets_threshold)
    with connection.open() as client:
        state = remote.init(client, folder, Passphrases(), new_passphrase(encrypt), plan, datetime.now(UTC))
        root_sha256 = remote.first_root_sha256(client, state)
    if as_json:
        print_json(
            {
                "keys": str(folder.folder),
                "root_sha256": root_sha256,
                "offline": _offline_files(state, folder),
                "stays": [str(folder.folder / f"{family}.pem")],
            }
        )
    else:
        _explain(state, folder, plan, root_sha256)


@repo.command()
@keys_option
@server_options
@json_option
def status(keys_folder: Path | None, connection: Connection, as_json: bool) -> None:
    """Show roles, versions, who signs, and how long it holds.

    \b
    Examples:
      edgeml repo status
      edgeml repo status --json | jq '.roles[] | {role, days_left}'
    """  # noqa: D301 - as above
    from datetime import UTC, datetime

    from edgeml_devices.repository import tables
    from edgeml_devices.repository.outcome import warn_expiry, warn_first_contact
    from edgeml_devices.repository.remote import first_root_sha256, read_remote

    folder = open_keys(keys_folder)
    with connection.open() as client:
        state = read_remote(client, folder)
        warn_first_contact(state, folder, client)
        root_sha256 = first_root_sha256(client, state)
    now = datetime.now(UTC)
    roles, families = tables.role_rows(state, now), tables.family_rows(state)
    if as_json:
        print_json({"root_sha256": root_sha256, "roles": roles, "families": families})
        return
    tables.print_status(roles, families)
    click.echo(f"\nsha256 of the first root, which devices enrol with: {root_sha256}")
    for role, problem in state.problems.items():
        click.echo(f"{click.style('warning:', fg='yellow', bold=True)} {role}: {problem}", err=True)
    warn_expiry(state, now.timestamp())


@repo.command()
@click.argument("roles", metavar="ROLE...", nargs=-1, required=True)
@output_option
@keys_option
@server_options
@json_option
def renew(
    roles: tuple[str, ...],
    output: Path | None,
    keys_folder: Path | None,
    connection: Connection,
    as_json: bool,
) -> None:
    """Sign a role's metadata again before it expires; it says the same.

    ROLE is root (holds for 365 days), targets (180) or a family (90; publishing renews it, too).

    \b
    Example:
      edgeml repo renew targets main
    """  # noqa: D301 - as above
    from datetime import UTC, datetime

    from edgeml_devices.repository import changes
    from edgeml_devices.repository.outcome import finish
    from edgeml_devices.repository.remote import read_remote

    folder = open_keys(keys_folder)
    with connection.open() as client:
        state = read_remote(client, folder)
        made = changes.renew(state, dict.fromkeys(roles), datetime.now(UTC))
        finish(made, state, client, folder, output, as_json=as_json)


@repo.command()
@click.argument("model")
@click.argument("release", type=click.IntRange(0))
@output_option
@keys_option
@server_options
@json_option
def floor(
    model: str,
    release: int,
    output: Path | None,
    keys_folder: Path | None,
    connection: Connection,
    as_json: bool,
) -> None:
    """Let devices refuse every release of MODEL below RELEASE. Needs the key of targets.

    For a release that must not come back, whoever runs the server. A floor only rises. What runs goes on
    running.

    \b
    Example:
      edgeml repo floor kws 5
    """  # noqa: D301 - as above
    from datetime import UTC, datetime

    from edgeml_devices.repository import changes
    from edgeml_devices.repository.outcome import finish
    from edgeml_devices.repository.remote import read_remote

    folder = open_keys(keys_folder)
    with connection.open() as client:
        state = read_remote(client, folder)
        made = changes.raise_floor(state, model, release, datetime.now(UTC))
        finish(made, state, client, folder, output, as_json=as_json)


@repo.command()
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=_FILE)
@click.option(
    "--key", "names", metavar="NAME", multiple=True, required=True, help="A key of your folder to sign with."
)
@keys_option
@json_option
def sign(files: tuple[Path, ...], names: tuple[str, ...], keys_folder: Path | None, as_json: bool) -> None:
    """Add your signature to metadata in files; needs no server.

    Shows what the metadata says: you vouch for it.

    \b
    Example:
      edgeml repo sign 3.targets.json --key targets-2 --keys /media/safe/keys
    """  # noqa: D301 - as above
    from edgeml.atomic import replacing_file
    from edgeml_devices.repository.changes import read_change
    from edgeml_devices.repository.keys import key_name
    from edgeml_devices.repository.tables import print_content

    folder, passphrases = open_keys(keys_folder), Passphrases()
    signers = []
    for name in names:
        key = folder.find(name)
        if key is None:
            raise UsageError(f"{folder.folder} has no {name}.pub; see edgeml keys list")
        signers.append(folder.signer(key, passphrases))
    signed = []
    for file in files:
        change = read_change(file)
        if not as_json:
            print_content(file, change)
        for signer in signers:
            change.metadata.sign(signer, append=True)
        with replacing_file(file) as scratch:
            scratch.write_bytes(change.metadata.to_bytes())
        signed.append({"file": str(file), "role": change.role, "signatures": len(change.metadata.signatures)})
        if not as_json:
            click.echo(f"{file}: signed by {', '.join(key_name(signer.public_key) for signer in signers)}")
    if as_json:
        print_json({"signed": signed})


@repo.command()
@click.argument("places", metavar="FILE...", nargs=-1, required=True, type=_FILE)
@keys_option
@server_options
@json_option
def push(places: tuple[Path, ...], keys_folder: Path | None, connection: Connection, as_json: bool) -> None:
    """Give signed metadata to the server, from files or folders.

    What lacks signatures is refused, and then nothing is pushed.

    \b
    Examples:
      edgeml repo push 3.targets.json
      edgeml repo push to-sign
    """  # noqa: D301 - as above
    from edgeml_devices.repository.changes import read_change
    from edgeml_devices.repository.outcome import finish
    from edgeml_devices.repository.remote import read_remote

    files = [
        file for place in places for file in (sorted(place.glob("*.json")) if place.is_dir() else [place])
    ]
    if not files:
        raise UsageError(f"{places[0]} holds no metadata")
    folder = open_keys(keys_folder)
    with connection.open() as client:
        state = read_remote(client, folder)
        finish([read_change(file) for file in files], state, client, folder, None, as_json=as_json)


@repo.command()
@click.argument("bundles", metavar="BUNDLE...", nargs=-1, type=_FILE)
@keys_option
@server_options
@json_option
def restore(
    bundles: tuple[Path, ...], keys_folder: Path | None, connection: Connection, as_json: bool
) -> None:
    """Give a server that was restored what was signed since.

    Pushes all that this machine saw signed and the server lacks; no key is needed. Of releases that were
    published after the back-up, give the bundles: their files are uploaded again.

    \b
    Examples:
      edgeml repo restore
      edgeml repo restore kws-7.edgeml kws-8.edgeml
    """  # noqa: D301 - as above
    from edgeml_devices.repository.publish import open_candidate
    from edgeml_devices.repository.publish_cli import watch_upload
    from edgeml_devices.repository.restoring import restore_repository

    folder = open_keys(keys_folder)
    candidates = [open_candidate(path) for path in bundles]
    with connection.open() as client, watch_upload() as watch:
        done = restore_repository(client, folder, candidates, watch)
    if as_json:
        roles = [
            {"role": one.role, "version": one.version, "before": one.server_version} for one in done.roles
        ]
        print_json({"roles": roles, "releases": done.releases, "uploaded_bytes": done.uploaded_bytes})
        return
    for one in done.roles:
        click.echo(
            f"{one.role}: version {one.version} is back; the server had {one.server_version or 'none'}"
        )
    for name in done.releases:
        click.echo(f"{name}: listed, with its files")
    if not done.roles and not done.releases:
        click.echo("the server lacks nothing that this machine has seen")


def _offline_files(state: RepositoryState, folder: KeyFolder) -> list[str]:
    from edgeml_devices.repository import metadata as md
    from edgeml_devices.repository.keys import key_name

    names = [
        key_name(key) for role in ("root", "targets") for key in md.signers_of(state.root.signed, role).keys
    ]
    return [str(folder.folder / f"{name}.pem") for name in names]


def _explain(state: RepositoryState, folder: KeyFolder, plan: Any, root_sha256: str) -> None:
    from edgeml_devices.repository import metadata as md

    click.echo("The repository is made: devices will take what these keys sign, and nothing else.\n")
    click.echo(
        "Move offline, root's keys to different places; they are needed to change keys, or once a year:"
    )
    root, targets = (md.signers_of(state.root.signed, role) for role in ("root", "targets"))
    for file in _offline_files(state, folder):
        of_root = Path(file).name.startswith("root-")
        signers, what = (
            (root, "the keys of all roles") if of_root else (targets, "which family signs which models")
        )
        click.echo(f"  {file}  {signers.threshold} of {len(signers.keys)} sign: {what}")
    models = "every model" if md.ALL_MODELS in plan.models else ", ".join(plan.models)
    click.echo("\nStays on the machine that publishes:")
    click.echo(f"  {folder.folder / plan.family}.pem  signs releases of {models}")
    click.echo(f"  {folder.trust}  what this machine knows of the repository")
    click.echo(
        "\nThe server has the keys of snapshot and timestamp; they say what is current, not what is right."
    )
    click.echo(f"\nsha256 of the first root, which devices enrol with: {root_sha256}")
    click.echo("\nNext:\n  edgeml publish BUNDLE\n  edgeml tokens join --label site=a")
