"""The server's side of the repository, by python-tuf alone: verifies what is pushed, signs what is current.

Gives a stock client's fetcher, so that what devices would see is tried at every step.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from securesystemslib.signer import CryptoSigner
from tuf.api.exceptions import DownloadHTTPError, RepositoryError
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, Targets, Timestamp
from tuf.ngclient import FetcherInterface, Updater

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from edgeml_devices.repository.changes import Change

NOW = datetime(2026, 3, 1, tzinfo=UTC)


class RefusedPushError(Exception):
    """The server does not take this metadata."""


class SimulatedServer:
    def __init__(self) -> None:
        self.online = {
            "snapshot": CryptoSigner.generate_ed25519(),
            "timestamp": CryptoSigner.generate_ed25519(),
        }
        self.files: dict[str, bytes] = {}
        self.manifests: dict[str, bytes] = {}
        self.root: Metadata[Root] | None = None
        self.roles: dict[str, Metadata[Targets]] = {}
        self.snapshot = Metadata(Snapshot(expires=self._in_days(7), meta={}))
        self.timestamp = Metadata(Timestamp(expires=self._in_days(1)))
        self.snapshot.signed.version = self.timestamp.signed.version = 0

    def fetch(self, name: str) -> bytes | None:
        return self.files.get(name)

    def push(self, role: str, content: bytes) -> None:
        """Take the next version of a role, if its signatures hold under those who name its keys now."""
        metadata = Metadata.from_bytes(content)
        try:
            self._check(role, metadata)
        except (RepositoryError, ValueError) as error:
            raise RefusedPushError(str(error)) from error
        self._store(role, metadata, content)
        self._sign_current()

    def push_all(self, changes: list[Change]) -> None:
        for change in changes:
            self.push(change.role, change.metadata.to_bytes())

    def init(self, changes: list[Change]) -> None:
        for change in changes:
            self._check(change.role, change.metadata)
            self._store(change.role, change.metadata, change.metadata.to_bytes())
        self._sign_current()

    def client(self, folder: Path) -> Updater:
        """Give a stock client; it trusts the first root, or what the folder has from an earlier run."""
        targets = folder / "targets"
        targets.mkdir(parents=True, exist_ok=True)
        return Updater(
            str(folder / "metadata"),
            "https://server/metadata/",
            str(targets),
            "https://server/targets/",
            fetcher=_Fetcher(self),
            bootstrap=self.files["1.root.json"],
        )

    def _check(self, role: str, metadata: Metadata) -> None:
        if role == Root.type:
            if self.root is not None:
                self.root.signed.verify_delegate(role, metadata.signed_bytes, metadata.signatures)
            metadata.signed.verify_delegate(role, metadata.signed_bytes, metadata.signatures)
            before = self.root
        else:
            delegator = self.root if role == Targets.type else self.roles[Targets.type]
            assert delegator is not None
            delegator.signed.verify_delegate(role, metadata.signed_bytes, metadata.signatures)
            before = self.roles.get(role)
        wanted = 1 if before is None else before.signed.version + 1
        if metadata.signed.version != wanted:
            raise ValueError(f"{role}: version {metadata.signed.version} instead of {wanted}")

    def _store(self, role: str, metadata: Metadata, content: bytes) -> None:
        self.files[f"{metadata.signed.version}.{role}.json"] = content
        if role == Root.type:
            self.root = metadata
        else:
            self.roles[role] = metadata
            self.snapshot.signed.meta[f"{role}.json"] = MetaFile(metadata.signed.version)

    def _sign_current(self) -> None:
        for role, metadata in (("snapshot", self.snapshot), ("timestamp", self.timestamp)):
            metadata.signed.version += 1
            metadata.sign(self.online[role])
            self.timestamp.signed.snapshot_meta = MetaFile(self.snapshot.signed.version)
        self.timestamp.sign(self.online["timestamp"])
        self.files[f"{self.snapshot.signed.version}.snapshot.json"] = self.snapshot.to_bytes()
        self.files["timestamp.json"] = self.timestamp.to_bytes()

    def _in_days(self, days: int) -> datetime:
        # a stock client's clock is the machine's
        return datetime.now(UTC).replace(microsecond=0) + timedelta(days=days)


class _Fetcher(FetcherInterface):
    def __init__(self, server: SimulatedServer) -> None:
        self._server = server

    def _fetch(self, url: str) -> Iterator[bytes]:
        name = url.removeprefix("https://server/")
        kind, _, path = name.partition("/")
        found = self._server.files.get(path) if kind == "metadata" else self._server.manifests.get(path)
        if found is None:
            raise DownloadHTTPError(f"no {name}", 404)
        yield found
