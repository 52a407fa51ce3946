"""``--keys``, ``--encrypt``, ``--output`` and passphrases: what the commands around keys share."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from edgeml.errors import TrustError

if TYPE_CHECKING:
    from edgeml_devices.repository.keys import KeyFolder

PASSPHRASE: Final = "EDGEML_KEY_PASSPHRASE"  # noqa: S105 - a variable's name

keys_option = click.option(
    "--keys",
    "keys_folder",
    metavar="FOLDER",
    envvar="EDGEML_KEYS",
    type=click.Path(path_type=Path),
    help="Where your keys are (EDGEML_KEYS); by default keys in edgeml's home.",
)
encrypt_option = click.option(
    "--encrypt", is_flag=True, help=f"Encrypt new private keys; asks for a passphrase, or {PASSPHRASE}."
)
output_option = click.option(
    "-o",
    "--output",
    metavar="FOLDER",
    type=click.Path(path_type=Path),
    help="Push nothing: write the metadata here, to be signed elsewhere.",
)


def open_keys(folder: Path | None) -> KeyFolder:
    """Give the folder of keys, which need not exist yet."""
    from edgeml_devices.repository.keys import KeyFolder

    if folder is None:
        from edgeml.settings import settings

        folder = settings().home / "keys"
    return KeyFolder(folder)


class Passphrases:
    """Gives the passphrase of a key: from the environment, or asked for once."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}

    def __call__(self, name: str) -> str:
        given = os.environ.get(PASSPHRASE)
        if given:
            return given
        if name not in self._known:
            _require_terminal(f"the key {name} is encrypted")
            self._known[name] = click.prompt(f"Passphrase of {name}", hide_input=True, err=True)
        return self._known[name]


def new_passphrase(encrypt: bool) -> str | None:
    """Give the passphrase for new keys, if they are to be encrypted."""
    if not encrypt:
        return None
    given = os.environ.get(PASSPHRASE)
    if given:
        return given
    _require_terminal("a passphrase is needed")
    passphrase: str = click.prompt(
        "Passphrase for the new keys", hide_input=True, confirmation_prompt=True, err=True
    )
    return passphrase


def _require_terminal(why: str) -> None:
    if not sys.stdin.isatty():
        raise TrustError(f"{why}, and nobody is there to ask: set {PASSPHRASE}")
