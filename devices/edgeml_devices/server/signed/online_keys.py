"""The server's own keys, for snapshot and timestamp: files in the data folder that only it can read.

Pairs are numbered. The newest pair is what a new root should name; the server signs with whichever the
current root names, so that a root with new keys takes effect at once.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Root

from edgeml.errors import TrustError

ROLES: Final = ("snapshot", "timestamp")


@dataclass(frozen=True, slots=True)
class OnlineKeys:
    """The folder of the server's keys: ``snapshot.1.pem``, ``timestamp.1.pem``, and so on."""

    folder: Path

    def ensure(self) -> None:
        """Make the first pair where there is none. Several processes may do it at once."""
        if not self._numbers():
            self.make_pair()

    def make_pair(self) -> None:
        """Make the next pair."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        number = max(self._numbers(), default=0) + 1
        for role in ROLES:
            _write_new(self.folder / f"{role}.{number}.pem", _new_key())

    def public(self) -> dict[str, dict[str, Any]]:
        """Give the newest pair's public halves, as TUF writes keys, each with its ``keyid``."""
        newest = max(self._numbers())
        answer = {}
        for role in ROLES:
            key = self._signer(role, newest).public_key
            answer[role] = {"keyid": key.keyid, **key.to_dict()}
        return answer

    def signer(self, role: str, root: Root) -> CryptoSigner:
        """Give the key that a root names for a role.

        Raises:
            TrustError: it names none of this server's.
        """
        for number in sorted(self._numbers(), reverse=True):
            signer = self._signer(role, number)
            if signer.public_key.keyid in root.roles[role].keyids:
                return signer
        raise TrustError(
            f"root names no key of this server for {role}; take it from GET /v1/repository/online-keys "
            "(edgeml keys online), or restore the keys from a back-up"
        )

    def _numbers(self) -> set[int]:
        """Give the numbers of whole pairs."""
        found = [
            {int(path.name.split(".")[1]) for path in self.folder.glob(f"{role}.*.pem")} for role in ROLES
        ]
        return found[0] & found[1]

    def _signer(self, role: str, number: int) -> CryptoSigner:
        content = (self.folder / f"{role}.{number}.pem").read_bytes()
        return CryptoSigner(serialization.load_pem_private_key(content, None))


def _new_key() -> bytes:
    return Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write_new(path: Path, content: bytes) -> None:
    """Write a file that is whole or not there; the one that is there stays."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    handle = os.open(scratch, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        path.hardlink_to(scratch)
    except FileExistsError:
        pass
    finally:
        scratch.unlink()
