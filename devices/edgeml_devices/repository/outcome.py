"""How a change of the repository ends: signed and pushed, or written for others to sign; and what is said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import click

from edgeml.commands.json_output import print_json
from edgeml_devices.api_client import ApiClient
from edgeml_devices.repository import changes as ch
from edgeml_devices.repository.key_options import Passphrases
from edgeml_devices.repository.keys import KeyFolder
from edgeml_devices.repository.remote import push, read_remote
from edgeml_devices.repository.state import RepositoryState

SOON_DAYS: Final = 14
"""From when on an expiry is warned of."""


def finish(
    changes: Sequence[ch.Change],
    state: RepositoryState,
    client: ApiClient,
    keys: KeyFolder,
    output: Path | None,
    *,
    as_json: bool,
) -> None:
    """Sign with the keys that are here, then push, or write files to ``output``; say what was done.

    Raises:
        TrustError: too few keys are here to push.
    """
    warn_first_contact(state, keys, client)
    ch.sign(changes, state, keys, Passphrases())
    if output is None:
        done = push(changes, state, client)
        read_remote(client, keys)
        written: list[Path] = []
    else:
        done, written = ch.in_order(changes, state), ch.write_changes(ch.in_order(changes, state), output)
    lacking = {one.role: one for one in ch.shortfalls(changes, state)}
    if as_json:
        print_json({"pushed": output is None, "metadata": [_shape(one, written, lacking) for one in done]})
        return
    for change in done:
        click.echo(_sentence(change, written, lacking))
    if written:
        where = "where the keys are: edgeml repo sign FILE --key NAME; then " if lacking else ""
        click.echo(f"{where}edgeml repo push {output}")


def warn_first_contact(state: RepositoryState, keys: KeyFolder, client: ApiClient) -> None:
    """Say that the server's root was taken on trust, the first time."""
    if state.is_first_contact:
        click.echo(
            f"{click.style('note:', fg='yellow', bold=True)} this machine sees the repository of "
            f"{client.server_url} for the first time and trusts its root from now on; "
            f"to be sure, copy {keys.trust} from who made it",
            err=True,
        )


def warn_expiry(state: RepositoryState, now: float) -> None:
    """Warn of metadata that devices will soon refuse."""
    roles: Mapping[str, Any] = {"root": state.root, "targets": state.targets, **state.families}
    for role, metadata in roles.items():
        days = (metadata.signed.expires.timestamp() - now) / 86400
        if days < SOON_DAYS:
            what = f"expires in {days:.0f} days" if days > 0 else "has expired: devices install nothing new"
            click.echo(
                f"{click.style('warning:', fg='yellow', bold=True)} {role} {what}; edgeml repo renew {role}",
                err=True,
            )


def _sentence(change: ch.Change, written: Sequence[Path], lacking: Mapping[str, ch.Shortfall]) -> str:
    signed = change.metadata.signed
    text = f"{change.role}: version {signed.version}, until {signed.expires:%Y-%m-%d}"
    if not written:
        return text
    file = next(path for path in written if path.name == change.file_name)
    short = lacking.get(change.role)
    return f"{file}: {text}: {'signed' if short is None else short.count}"


def _shape(change: ch.Change, written: Sequence[Path], lacking: Mapping[str, ch.Shortfall]) -> dict[str, Any]:
    signed = change.metadata.signed
    file = next((str(path) for path in written if path.name == change.file_name), None)
    return {
        "role": change.role,
        "version": signed.version,
        "expires": signed.expires.isoformat(),
        "file": file,
        "complete": change.role not in lacking,
    }
