"""Ed25519 keys in a protected folder: ``NAME.pem``, the private half, and ``NAME.pub``, which may travel.

``NAME.pub`` is the key as TUF metadata holds it, with its id and name. A private half that is kept elsewhere
is simply not in the folder.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from securesystemslib.signer import CryptoSigner, Key, SSlibKey

from edgeml.atomic import replacing_file
from edgeml.errors import TrustError, UsageError

NAME_FIELD: Final = "edgeml_name"
"""Where metadata says what people call a key."""
AskPassphrase = Callable[[str], str]
"""Gives the passphrase of the key of this name."""

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_ENCRYPTED: Final = b"-----BEGIN ENCRYPTED PRIVATE KEY-----"


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A key of which the folder has at least the public half."""

    name: str
    public: SSlibKey
    is_here: bool
    """Whether the private half is in the folder, too."""
    is_encrypted: bool


def key_name(key: Key) -> str:
    """Give what people call a key of the metadata: its name, or the start of its id."""
    name = key.unrecognized_fields.get(NAME_FIELD)
    return name if isinstance(name, str) and _NAME.fullmatch(name) else key.keyid[:12]


class KeyFolder:
    """The keys of one person or machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def trust(self) -> Path:
        """Where the metadata lies that was verified on this machine."""
        return self.folder / "trust"

    def create(self) -> None:
        """Make the folder, for the owner's eyes only.

        Raises:
            TrustError: it exists and others may look into it.
        """
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _require_private(self.folder)

    def keys(self) -> tuple[StoredKey, ...]:
        """Give all keys by name.

        Raises:
            TrustError: a public half cannot be read.
        """
        return tuple(self._read(path) for path in sorted(self.folder.glob("*.pub")))

    def find(self, name: str) -> StoredKey | None:
        """Give the key of a name, if the folder knows one."""
        path = self.folder / f"{name}.pub"
        return self._read(path) if _NAME.fullmatch(name) and path.is_file() else None

    def by_id(self, keyid: str) -> StoredKey | None:
        """Give the key of an id, if the folder knows one."""
        return next((key for key in self.keys() if key.public.keyid == keyid), None)

    def generate(self, name: str, passphrase: str | None = None) -> StoredKey:
        """Make a key.

        Args:
            name: new in this folder; ``NAME.pem`` and ``NAME.pub`` are written.
            passphrase: encrypts the private half (PKCS #8).

        Raises:
            UsageError: no name for a key, or it is taken.
            TrustError: others may look into the folder.
        """
        if not _NAME.fullmatch(name):
            raise UsageError(
                f"{name!r} cannot be a key's name: use letters, digits, '.', '_', '-', at most 64"
            )
        pem, pub = self.folder / f"{name}.pem", self.folder / f"{name}.pub"
        if pem.exists() or pub.exists():
            raise UsageError(f"{self.folder} has a key {name!r} already; choose another name")
        self.create()
        private = Ed25519PrivateKey.generate()
        public = SSlibKey.from_crypto(private.public_key())
        public.unrecognized_fields[NAME_FIELD] = name
        encryption: KeySerializationEncryption = (
            NoEncryption() if passphrase is None else BestAvailableEncryption(passphrase.encode())
        )
        content = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)
        handle = os.open(pem, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(handle)
        with replacing_file(pub) as scratch:
            scratch.write_text(json.dumps({"keyid": public.keyid} | public.to_dict(), indent=1) + "\n")
        return StoredKey(name, public, is_here=True, is_encrypted=passphrase is not None)

    def signer(self, key: StoredKey, ask: AskPassphrase) -> CryptoSigner:
        """Open a key to sign with.

        Raises:
            TrustError: the private half is elsewhere, open to others, damaged, of another key, or the
                passphrase is wrong.
        """
        path = self.folder / f"{key.name}.pem"
        if not path.is_file():
            raise TrustError(
                f"the private half of {key.name} is not in {self.folder}; bring {path.name} back"
            )
        _require_private(path)
        passphrase = ask(key.name).encode() if key.is_encrypted else None
        try:
            private = load_pem_private_key(path.read_bytes(), passphrase)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            what = "the passphrase is wrong, or the file is damaged" if key.is_encrypted else "it is damaged"
            raise TrustError(f"{path} cannot be opened: {what}") from error
        if not isinstance(private, Ed25519PrivateKey):
            raise TrustError(f"{path} is not an Ed25519 key")
        if SSlibKey.from_crypto(private.public_key()).keyid != key.public.keyid:
            raise TrustError(f"{path} and {key.name}.pub are halves of different keys; bring the right one")
        return CryptoSigner(private, key.public)

    def _read(self, path: Path) -> StoredKey:
        name = path.stem
        try:
            data = json.loads(path.read_bytes())
            public = SSlibKey.from_dict(data.pop("keyid"), data)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise TrustError(f"{path} is not the public half of a key ({error}); restore it") from error
        pem = self.folder / f"{name}.pem"
        is_here = pem.is_file()
        return StoredKey(name, public, is_here, is_here and pem.read_bytes().startswith(_ENCRYPTED))


def _require_private(path: Path) -> None:
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        raise TrustError(
            f"{path} is open to others (mode {mode:04o}); if none has read it, close it: chmod go= {path}"
        )
