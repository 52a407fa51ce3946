"""``edgeml keys``: make keys, give them to families of models, replace and revoke them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeml.commands.json_output import json_option, print_json
from edgeml.errors import UsageError
from edgeml_devices.connection import Connection, server_options
from edgeml_devices.repository.key_options import (
    encrypt_option,
    keys_option,
    new_passphrase,
    open_keys,
    output_option,
)

if TYPE_CHECKING:
    from securesystemslib.signer import Key

    from edgeml_devices.repository.keys import KeyFolder, StoredKey
    from edgeml_devices.repository.metadata import Signers
    from edgeml_devices.repository.state import RepositoryState


@click.group()
def keys() -> None:
    """Make keys, let them sign for models, replace and revoke them.

    A key is two files in a protected folder: NAME.pem signs, NAME.pub may be given to others.

    \b
    Examples:
      edgeml keys list
      edgeml keys family vision --model detector --model ocr
      edgeml keys rotate main
    """  # noqa: D301 - \b is click's mark for text that keeps its lines


@keys.command(name="list")
@keys_option
@json_option
def list_keys(keys_folder: Path | None, as_json: bool) -> None:
    """List the keys in your folder, and whether they can sign here.

    \b
    Example:
      edgeml keys list --keys ~/edgeml-keys
    """  # noqa: D301 - as above
    folder = open_keys(keys_folder)
    found = folder.keys()
    if as_json:
        shown = [
            {"name": key.name, "keyid": key.public.keyid, "here": key.is_here, "encrypted": key.is_encrypted}
            for key in found
        ]
        print_json({"folder": str(folder.folder), "keys": shown})
    elif not found:
        click.echo(f"{folder.folder} holds no keys; edgeml repo init or edgeml keys generate make some")
    else:
        _print_keys(found)


@keys.command()
@click.argument("name")
@encrypt_option
@keys_option
@json_option
def generate(name: str, encrypt: bool, keys_folder: Path | None, as_json: bool) -> None:
    """Make a key. It signs for nothing until a role names it.

    Who is to sign a family's releases makes a key and hands NAME.pub to whoever holds the key of targets.

    \b
    Example:
      edgeml keys generate vision-2 --encrypt
    """  # noqa: D301 - as above
    folder = open_keys(keys_folder)
    key = folder.generate(name, new_passphrase(encrypt))
    if as_json:
        print_json({"name": name, "keyid": key.public.keyid, "folder": str(folder.folder)})
    else:
        click.echo(f"{folder.folder / name}.pem signs; keep it to yourself")
        click.echo(f"{folder.folder / name}.pub is its public half; give it to who adds it to a family")


@keys.command()
@click.argument("family")
@click.option("--model", "models", metavar="NAME", multiple=True, help="A model it signs, too.")
@click.option(
    "--key", "names", metavar="NAME", multiple=True, help="A key of your folder that signs; all of them."
)
@click.option("--threshold", type=click.IntRange(1), help="How many of its keys must sign; 1 by default.")
@encrypt_option
@output_option
@keys_option
@server_options
@json_option
def family(
    family: str,
    models: tuple[str, ...],
    names: tuple[str, ...],
    threshold: int | None,
    encrypt: bool,
    output: Path | None,
    keys_folder: Path | None,
    connection: Connection,
    as_json: bool,
) -> None:
    """Let a family of keys sign the releases of models. Needs the key of targets.

    A family that does not exist is made, with a new key of its name unless keys are given. One that
    exists gets the models in addition, and the keys, if any are given, in the place of those it has.
    A model has one family; the one that signed it before no longer does.

    \b
    Examples:
      edgeml keys family vision --model detector --model ocr
      edgeml keys family vision --key vision --key vision-2 --threshold 2
    """  # noqa: D301 - as above
    from datetime import UTC, datetime

    from edgeml_devices.repository import changes
    from edgeml_devices.repository import metadata as md
    from edgeml_devices.repository.outcome import finish
    from edgeml_devices.repository.remote import read_remote

    md.check_family_name(family)
    folder = open_keys(keys_folder)
    with connection.open() as client:
        state = read_remote(client, folder)
        if family not in md.families(state.targets.signed) and not models:
            raise UsageError(f"{family} is new: which models does it sign? --model NAME")
        signers = _signers(state, folder, family, names, threshold, encrypt)
        made = changes.set_family(state, family, models, signers, datetime.now(UTC))
        finish(made, state, client, folder, output, as_json=as_json)


@keys.command()
@click.argument("key")
@encrypt_option
@output_option
@keys_option
@server_options
@json_option
def rotate(
    key: str,
    encrypt: bool,
    output: Path | None,
    keys_folder: Path | None,
    connection: Connection,
    as_json: bool,
) -> None:
    """Put a new key in the place of KEY, wherever it may sign.

    KEY is a name or the beginning of an id, as edgeml repo status shows it, or `online` for the two that the
    server has. Who names the key must sign: targets for a family's key, root for the others. Devices
    follow by themselves.

    \b
    Examples:
      edgeml keys rotate main
      edgeml keys rotate root-1 --keys /media/safe/keys
      edgeml keys rotate online
    """  # noqa: D301 - as above
    from datetime import UTC, datetime

    from edgeml_devices.repository import changes
    from edgeml_devices.repository.outcome import finish
    from edgeml_devices.repository.remote import online_keys, read_remote

    folder = open_keys(keys_folder)
    with connection.open() as client:
        state = read_remote(client, folder)
        if key == "online":
            made = changes.replace_online_keys(state, online_keys(client, next_pair=True), datetime.now(UTC))
            finish(made, state, client, folder, output, as_json=as_json)
            return
        old = _find_key(state, key)
        new = _successor(folder, old, new_passphrase(encrypt))
        made = changes.replace_key(state, old.keyid, new.public, datetime.now(UTC))
        finish(made, state, client, folder, output, as_json=as_json)
        if not as_json:
            click.echo(f"{folder.folder / new.name}.pem signs now; what {key} signs is refused from here on")


@keys.command()
@click.argument("key")
@output_option
@keys_option
@server_options
@json_option
def revoke(
    key: str, output: Path | None, keys_folder: Path | None, connection: Connection, as_json: bool
) -> None:
    """Take KEY out of its roles: devices refuse what it signs.

    KEY is a name or the beginning of an id, as edgeml repo status shows it. A role's only key cannot go:
    replace it (edgeml keys rotate).

    \b
    Example:
      edgeml keys revoke vision-2
    """  # noqa: D301 - as above
    from datetime import UTC, datetime

    from edgeml_devices.repository import changes
    from edgeml_devices.repository.outcome import finish
    from edgeml_devices.repository.remote import read_remote

    folder = open_keys(keys_folder)
    with connection.open() as client:
        state = read_remote(client, folder)
        made = changes.replace_key(state, _find_key(state, key).keyid, None, datetime.now(UTC))
        finish(made, state, client, folder, output, as_json=as_json)


def _signers(
    state: RepositoryState,
    folder: KeyFolder,
    family: str,
    names: tuple[str, ...],
    threshold: int | None,
    encrypt: bool,
) -> Signers:
    """Give the keys of a family: those asked for, those it has, or a new one."""
    from edgeml_devices.repository import metadata as md

    targets = state.targets.signed
    before = md.signers_of(targets, family) if family in md.families(targets) else None
    if names:
        found: list[Key] = []
        for name in names:
            key = folder.find(name)
            if key is None:
                raise UsageError(
                    f"{folder.folder} has no {name}.pub; make it with edgeml keys generate {name}"
                )
            found.append(key.public)
    elif before is not None:
        found = list(before.keys)
    else:
        found = [(folder.find(family) or folder.generate(family, new_passphrase(encrypt))).public]
    return md.Signers(tuple(found), threshold or (1 if before is None else before.threshold))


def _find_key(state: RepositoryState, name: str) -> Key:
    """Give the one key of the metadata that is called or begins like this."""
    from edgeml_devices.repository import metadata as md
    from edgeml_devices.repository.keys import key_name

    known = {key.keyid: key for _, key in md.all_keys(state.root.signed, state.targets.signed)}
    found = [key for key in known.values() if key_name(key) == name]
    found = found or [key for key in known.values() if key.keyid.startswith(name)]
    if len(found) != 1:
        names = ", ".join(sorted(map(key_name, known.values())))
        what = "several keys are" if found else "no key is"
        raise UsageError(f"{what} called {name!r}; there are: {names}. An id's beginning serves, too")
    return found[0]


def _successor(folder: KeyFolder, old: Key, passphrase: str | None) -> StoredKey:
    """Make the key that follows ``NAME``: ``NAME.2``, then ``NAME.3``."""
    from edgeml_devices.repository.keys import key_name

    stem, _, number = key_name(old).rpartition(".")
    base, count = (stem, int(number)) if stem and number.isdigit() else (key_name(old), 1)
    while folder.find(f"{base}.{count + 1}") is not None:
        count += 1
    return folder.generate(f"{base}.{count + 1}", passphrase)


def _print_keys(found: tuple[StoredKey, ...]) -> None:
    from edgeml.terminal import Column, open_console, print_table

    signs = ["encrypted" if key.is_encrypted else "yes" if key.is_here else "elsewhere" for key in found]
    columns = [
        Column("key", [key.name for key in found], is_name=True),
        Column("signs here", signs, is_word=True),
        Column("id", [key.public.keyid[:12] for key in found], leaves=1, is_word=True),
    ]
    print_table(open_console(), columns)
